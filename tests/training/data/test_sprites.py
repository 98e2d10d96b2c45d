"""Tests for reading the artwork."""

import json
import shutil
from pathlib import Path

import pytest

from training.data.sprites import SceneDataError, load_sprites


def test_a_sprite_fills_its_square_along_its_longer_side(artwork: Path) -> None:
    sprite = load_sprites(artwork).scaled("solid-ball", 20)  # 40 x 28 pixels
    assert sprite.shape == (20, 20, 4)
    assert sprite[10, 10, 3] == 1
    assert sprite[:3, :, 3].max() == 0
    assert (sprite[..., :3] <= sprite[..., 3:] + 1e-6).all()


def test_a_folder_without_artwork_is_named(tmp_path: Path) -> None:
    with pytest.raises(SceneDataError, match=r"expected scene_vocabulary\.json in"):
        load_sprites(tmp_path)


def test_an_object_without_a_sprite_is_named(artwork: Path, tmp_path: Path) -> None:
    shutil.copytree(artwork, tmp_path / "scenes")
    file = tmp_path / "scenes" / "scene_vocabulary.json"
    content = json.loads(file.read_text())
    content["objects"][2]["sprites"]["solid"] = "solid-gone"
    file.write_text(json.dumps(content))
    with pytest.raises(SceneDataError, match=r"'solid-gone'.*'egg' in style 'solid'"):
        load_sprites(tmp_path)
