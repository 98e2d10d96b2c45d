"""Tests for cutting sprites out of checkouts: those a vocabulary names, cropped, readable again."""

import json
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from training.data.artwork import SIDE_PX, write_sprites
from training.data.sprites import SceneDataError, load_sprites


def _draw(path: Path) -> None:
    image = Image.new("RGBA", (512, 512), (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle((100, 200, 299, 299), fill="red")
    path.parent.mkdir(parents=True)
    image.save(path)


def test_a_checkout_becomes_sprites_that_scenes_can_use(tmp_path: Path) -> None:
    fluent, noto = tmp_path / "fluent", tmp_path / "noto"
    _draw(fluent / "assets" / "Heart" / "3D" / "heart_3d.png")
    (fluent / "assets" / "Heart" / "metadata.json").write_text('{"unicode": "2764 fe0f"}')
    _draw(noto / "png" / "512" / "emoji_u2764.png")
    vocabulary = tmp_path / "scene_vocabulary.json"
    thing = {"name": "heart", "singular": "heart", "plural": "hearts"}
    thing_sprites = {"fluent3d": "fluent3d-2764", "noto": "noto-2764"}
    content = {
        "objects": [thing | {"sprites": thing_sprites}],
        "styles": {"fluent3d": "3D", "noto": "flat"},
        "backgrounds": {"white": "#ffffff"},
    }
    vocabulary.write_text(json.dumps(content))
    out = tmp_path / "scene-sprites.tar"
    assert write_sprites(fluent=fluent, noto=noto, vocabulary=vocabulary, out=out) == 2
    assert load_sprites(tmp_path).artwork["noto-2764"].size == (SIDE_PX, SIDE_PX // 2)


def test_a_folder_that_is_no_checkout_is_named(tmp_path: Path) -> None:
    with pytest.raises(SceneDataError, match="expected a checkout of fluentui-emoji"):
        write_sprites(fluent=tmp_path, noto=tmp_path, vocabulary=tmp_path, out=tmp_path / "x.tar")
