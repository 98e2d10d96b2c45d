"""Tests for reading the artwork."""

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


@pytest.fixture
def folder(artwork: Path, tmp_path: Path) -> Path:
    """A copy of the artwork, to damage."""
    shutil.copytree(artwork, tmp_path / "copy")
    return tmp_path / "copy"


def _change(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / "scene_vocabulary.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def _tiers(content: dict[str, Any]) -> None:
    names = [entry["name"] for entry in content["objects"]]
    content["tiers"] = {name: 1 + index // 3 for index, name in enumerate(names)}
    content["groups"] = {name: f"things like {name}" for name in names}


def test_tiers_and_groups_are_read_where_the_vocabulary_has_them(folder: Path) -> None:
    vocabulary = load_sprites(folder).vocabulary
    assert (vocabulary.tiers, vocabulary.groups) == ({}, {})
    _change(folder, _tiers)
    vocabulary = load_sprites(folder).vocabulary
    assert vocabulary.tiers["star"] == 2
    assert vocabulary.groups["egg"] == "things like egg"


def test_the_first_objects_are_read_with_their_artwork_alone(folder: Path) -> None:
    _change(folder, _tiers)
    sprites = load_sprites(folder, objects=2)
    assert [thing.name for thing in sprites.vocabulary.objects] == ["ball", "box"]
    assert sprites.vocabulary.tiers == {"ball": 1, "box": 1}
    assert set(sprites.vocabulary.groups) == {"ball", "box"}
    assert set(sprites.artwork) == {"solid-ball", "solid-box", "outline-ball", "outline-box"}
    everything = load_sprites(folder)
    assert load_sprites(folder, objects=8).vocabulary == everything.vocabulary
    assert set(load_sprites(folder, objects=8).artwork) == set(everything.artwork)


@pytest.mark.parametrize("objects", [0, -1, 9])
def test_more_objects_than_there_are_is_refused(artwork: Path, objects: int) -> None:
    with pytest.raises(SceneDataError, match=f"objects: expected 1 to 8, got {objects}"):
        load_sprites(artwork, objects=objects)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("styles"), "it has no key 'styles'"),
        (lambda content: content["objects"][0].update(tier=1), "keys name, .*, tier: expected"),
        (lambda content: content["objects"][0].pop("plural"), "expected name, plural, singular"),
        (lambda content: content["objects"][0].update(sprites="ball"), "the sprites of 'ball'"),
        (lambda content: content["backgrounds"].update(sky="bluish"), "'bluish'"),
        (lambda content: content.update(tiers={"ball": 1}), "tiers has no entry of 'box'"),
        (lambda content: content.update(groups={"ball": "toy"}), "groups has no entry of 'box'"),
    ],
)
def test_what_is_wrong_in_a_vocabulary_is_named(
    folder: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    _change(folder, change)
    with pytest.raises(SceneDataError, match=rf"scene_vocabulary\.json.*{message}"):
        load_sprites(folder)


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff\xfe\xff"])
def test_a_file_of_another_form_is_no_vocabulary(folder: Path, content: bytes) -> None:
    (folder / "scene_vocabulary.json").write_bytes(content)
    with pytest.raises(SceneDataError, match=r"scene_vocabulary\.json is no scene vocabulary"):
        load_sprites(folder)


def test_a_truncated_tar_is_named(folder: Path) -> None:
    tar = folder / "scene-sprites.tar"
    whole = tar.read_bytes()
    with tarfile.open(tar) as archive:
        end_of_first = archive.getmembers()[1].offset
    tar.write_bytes(whole[:700])  # within the first picture
    with pytest.raises(SceneDataError, match=r"scene-sprites\.tar is no whole tar"):
        load_sprites(folder)
    tar.write_bytes(whole[:end_of_first])  # between two pictures
    with pytest.raises(SceneDataError, match=r"scene-sprites\.tar has no sprite 'outline-ball'"):
        load_sprites(folder)
    tar.write_bytes(b"no tar at all" * 100)
    with pytest.raises(SceneDataError, match=r"scene-sprites\.tar is no whole tar"):
        load_sprites(folder)


def test_a_damaged_picture_is_named(folder: Path) -> None:
    tar = folder / "scene-sprites.tar"
    content = bytearray(tar.read_bytes())
    content[512:520] = b"not PNG!"
    tar.write_bytes(content)
    with pytest.raises(SceneDataError, match=r"solid-ball\.png cannot be decoded"):
        load_sprites(folder)
