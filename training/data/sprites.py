"""The artwork scenes are made of: cut-out objects in several styles, and their names."""

import io
import json
import tarfile
from collections.abc import Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageColor

SPRITES_FILE = "scene-sprites.tar"
VOCABULARY_FILE = "scene_vocabulary.json"


class SceneDataError(ValueError):
    """The folder of sprites is not what it should be."""


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """One thing a scene can show.

    Attributes:
        name: Its identity.
        singular: What a caption calls one of it.
        plural: What a caption calls several.
        sprites: Name of its artwork in each style.
    """

    name: str
    singular: str
    plural: str
    sprites: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Everything a scene can be made of.

    Attributes:
        objects: The things, in the file's order.
        styles: What a caption calls each style of artwork.
        backgrounds: Colour names and their sRGB bytes.
    """

    objects: tuple[SceneObject, ...]
    styles: dict[str, str]
    backgrounds: dict[str, tuple[int, int, int]]


@dataclass(kw_only=True)
class SpriteSet:
    """The vocabulary and its artwork, scaled on demand.

    Attributes:
        vocabulary: What the artwork shows.
        artwork: RGBA pictures, cropped to their content, by sprite name.
    """

    vocabulary: Vocabulary
    artwork: dict[str, Image.Image]
    _scaled: dict[tuple[str, int], Float[np.ndarray, "size size 4"]] = field(default_factory=dict)

    def scaled(self, name: str, size_px: int) -> Float[np.ndarray, "size size 4"]:
        """Returns a sprite fitted into a square, centred: premultiplied RGB and alpha in [0, 1].

        Args:
            name: Of the sprite.
            size_px: Side of the square; the longer side of the artwork fills it.
        """
        key = (name, size_px)
        if key not in self._scaled:
            self._scaled[key] = _fit(self.artwork[name], size_px)
        return self._scaled[key]


def load_sprites(folder: Path, *, objects: int | None = None) -> SpriteSet:
    """Reads a folder of sprites: `scene-sprites.tar` and `scene_vocabulary.json`.

    Args:
        folder: The folder, or one with a folder `scenes` that is it.
        objects: How many of the vocabulary's objects to keep, from its first; all if None.

    Raises:
        SceneDataError: a file is missing, or an object has no artwork in some style.
    """
    folder = _scenes_folder(folder)
    for name in (VOCABULARY_FILE, SPRITES_FILE):
        if not (folder / name).is_file():
            raise SceneDataError(f"expected {name} in {folder}, which has no such file")
    vocabulary = _vocabulary(json.loads((folder / VOCABULARY_FILE).read_text()))
    if objects is not None:
        if not 1 <= objects <= len(vocabulary.objects):
            raise SceneDataError(
                f"expected at least {objects} objects in {folder / VOCABULARY_FILE}, "
                f"which has {len(vocabulary.objects)}"
            )
        vocabulary = replace(vocabulary, objects=vocabulary.objects[:objects])
    wanted = {sprite for thing in vocabulary.objects for sprite in thing.sprites.values()}
    artwork = _artwork(folder / SPRITES_FILE, wanted)
    for thing in vocabulary.objects:
        for style in vocabulary.styles:
            if thing.sprites.get(style) not in artwork:
                raise SceneDataError(
                    f"{SPRITES_FILE} has no sprite {thing.sprites.get(style)!r}, which "
                    f"{VOCABULARY_FILE} names for {thing.name!r} in style {style!r}"
                )
    return SpriteSet(vocabulary=vocabulary, artwork=artwork)


def has_sprites(folder: Path) -> bool:
    """Returns whether a folder is one of sprites."""
    return (_scenes_folder(folder) / VOCABULARY_FILE).is_file()


def _scenes_folder(folder: Path) -> Path:
    inner = folder / "scenes"
    return inner if not (folder / VOCABULARY_FILE).is_file() and inner.is_dir() else folder


def _vocabulary(content: dict[str, Any]) -> Vocabulary:
    return Vocabulary(
        objects=tuple(SceneObject(**entry) for entry in content["objects"]),
        styles=dict(content["styles"]),
        backgrounds={
            name: ImageColor.getrgb(colour)[:3] for name, colour in content["backgrounds"].items()
        },
    )


def _artwork(tar: Path, wanted: Set[str]) -> dict[str, Image.Image]:
    """Reads the wanted pictures of the tar; the JSON beside each says where it is from."""
    pictures = {}
    with tarfile.open(tar) as archive:
        for member in archive:
            if Path(member.name).stem not in wanted:
                continue
            stream = archive.extractfile(member)
            if stream is not None and Path(member.name).suffix in (".webp", ".png"):
                picture = Image.open(io.BytesIO(stream.read())).convert("RGBA")
                pictures[Path(member.name).stem] = picture
    return pictures


def _fit(picture: Image.Image, size_px: int) -> Float[np.ndarray, "size size 4"]:
    scale = size_px / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    # RGBa is premultiplied: without it, hidden colours of transparent pixels bleed into edges.
    small = picture.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS)
    square = np.zeros((size_px, size_px, 4), np.float32)
    top, left = (size_px - height) // 2, (size_px - width) // 2
    pixels = np.frombuffer(small.tobytes(), np.uint8).reshape(height, width, 4)
    square[top : top + height, left : left + width] = pixels.astype(np.float32) / 255
    return square
