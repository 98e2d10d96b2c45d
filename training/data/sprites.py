"""The artwork scenes are made of: cut-out objects in several styles, and their names."""

import io
import json
import tarfile
from collections.abc import Collection
from dataclasses import dataclass, field, fields, replace
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
        tiers: Tier of each object by name, 1 the easiest to recognise; empty if the file has none.
        groups: Group of each object by name; empty if the file has none.
    """

    objects: tuple[SceneObject, ...]
    styles: dict[str, str]
    backgrounds: dict[str, tuple[int, int, int]]
    tiers: dict[str, int] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)


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
        objects: Read only the first so many objects of the vocabulary; None reads all.

    Raises:
        SceneDataError: a file is missing or damaged, an object has no artwork in some style, or
            there are fewer objects.
    """
    folder = _scenes_folder(folder)
    for name in (VOCABULARY_FILE, SPRITES_FILE):
        if not (folder / name).is_file():
            raise SceneDataError(f"expected {name} in {folder}, which has no such file")
    vocabulary = read_vocabulary(folder / VOCABULARY_FILE)
    if objects is not None:
        vocabulary = _first(vocabulary, objects)
    names = {
        thing.sprites.get(style) for thing in vocabulary.objects for style in vocabulary.styles
    }
    artwork = _artwork(folder / SPRITES_FILE, names)
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


def read_vocabulary(file: Path) -> Vocabulary:
    """Reads a `scene_vocabulary.json`.

    Raises:
        SceneDataError: the file cannot be read or is no vocabulary.
    """
    try:
        content = json.loads(file.read_text("utf-8"))
        vocabulary = Vocabulary(
            objects=tuple(_object(entry) for entry in content["objects"]),
            styles=dict(content["styles"]),
            backgrounds={
                name: ImageColor.getrgb(colour)[:3]
                for name, colour in content["backgrounds"].items()
            },
            tiers=dict(content.get("tiers", {})),
            groups=dict(content.get("groups", {})),
        )
    except OSError as error:
        raise SceneDataError(f"{file} cannot be read: {error.strerror}") from error
    except KeyError as error:
        raise SceneDataError(f"{file} is no scene vocabulary: it has no key {error}") from error
    except (TypeError, AttributeError, ValueError) as error:
        raise SceneDataError(f"{file} is no scene vocabulary: {error}") from error
    for key, values in (("tiers", vocabulary.tiers), ("groups", vocabulary.groups)):
        for thing in vocabulary.objects:
            if values and thing.name not in values:
                raise SceneDataError(f"{file}: {key} has no entry of {thing.name!r}")
    return vocabulary


def _object(entry: dict[str, Any]) -> SceneObject:
    expected = {key.name for key in fields(SceneObject)}
    if set(entry) != expected:
        raise ValueError(
            f"an object has the keys {', '.join(sorted(entry))}: expected "
            f"{', '.join(sorted(expected))}"
        )
    if not isinstance(entry["sprites"], dict):
        raise ValueError(f"the sprites of {entry['name']!r}: expected a name for each style")
    return SceneObject(**entry)


def _first(vocabulary: Vocabulary, count: int) -> Vocabulary:
    if not 1 <= count <= len(vocabulary.objects):
        raise SceneDataError(f"objects: expected 1 to {len(vocabulary.objects)}, got {count}")
    objects = vocabulary.objects[:count]
    names = {thing.name for thing in objects}
    return replace(
        vocabulary,
        objects=objects,
        tiers={name: tier for name, tier in vocabulary.tiers.items() if name in names},
        groups={name: group for name, group in vocabulary.groups.items() if name in names},
    )


def _artwork(tar: Path, names: Collection[str | None]) -> dict[str, Image.Image]:
    """Reads the named pictures of the tar; the JSON beside each says where it is from."""
    pictures = {}
    try:
        with tarfile.open(tar) as archive:
            for member in archive:
                path = Path(member.name)
                stream = archive.extractfile(member)
                if stream and path.suffix in (".webp", ".png") and path.stem in names:
                    pictures[path.stem] = _picture(stream.read(), f"{tar}: {member.name}")
    except tarfile.TarError as error:
        raise SceneDataError(f"{tar} is no whole tar: {error}") from error
    return pictures


def _picture(content: bytes, source: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content)).convert("RGBA")
    except OSError as error:
        raise SceneDataError(f"{source} cannot be decoded: {error}") from error


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
