"""Sprites that scenes are composed from, made from upstream artwork of emoji."""

import io
import json
import os
import tarfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from training.data.artwork_sources import LICENSES, Artwork, emoji_code, open_artwork
from training.data.sprites import (
    SPRITES_FILE,
    VOCABULARY_FILE,
    SceneDataError,
    SceneObject,
    Vocabulary,
    read_vocabulary,
)

T = TypeVar("T")

SIDE_PX = 192  # of the longer side of a sprite, at most
_MIN_ALPHA = 8  # of 255, of a pixel that belongs to the sprite
_WEBP = {"quality": 92, "method": 5}  # lossy colour, lossless alpha


def write_sprites(
    *,
    sources: Mapping[str, Path],
    vocabulary: Path,
    out: Path,
    styles: Collection[str] = (),
    tiers: Collection[int] = (),
    side_px: int = SIDE_PX,
) -> int:
    """Writes a folder of sprites: their tar, and the part of the vocabulary that they show.

    A file is written beside its place and renamed, so that a folder never holds part of one.

    Args:
        sources: A checkout or an unpacked npm package for each style; see `open_artwork`.
        vocabulary: A `scene_vocabulary.json`.
        out: The folder to write `scene-sprites.tar` and `scene_vocabulary.json` into.
        styles: Styles to write; empty for all of the vocabulary.
        tiers: Tiers of objects to write; empty for all objects.
        side_px: Longer side of a sprite in pixels; smaller artwork keeps its size.

    Returns:
        How many sprites were written.

    Raises:
        SceneDataError: a style, tier, source or artwork is missing or damaged, or `out` cannot be
            written.
    """
    if side_px < 1:
        raise SceneDataError(f"side_px: expected at least 1, got {side_px}")
    if out.resolve() == vocabulary.resolve().parent:
        raise SceneDataError(f"{out} holds the vocabulary to read: expected another folder")
    known = read_vocabulary(vocabulary)
    styles = _selection("style", styles, tuple(known.styles))
    objects = _objects_of(known, tiers)
    sprites = {
        thing.sprites[style]: (thing, style, artwork)
        for style in styles
        for thing, artwork in _artwork_of(style, objects, sources)
    }
    content = json.loads(vocabulary.read_text("utf-8"))
    part = _part(content, styles, {thing.name for thing in objects})
    # Until both files are whole, neither replaces an older one.
    with _replacing(out / VOCABULARY_FILE) as file:
        file.write_text(json.dumps(part, indent=1), "utf-8")
        with _replacing(out / SPRITES_FILE) as tar:
            _write_tar(tar, sprites, known, side_px)
    return len(sprites)


def _write_tar(
    tar: Path,
    sprites: Mapping[str, tuple[SceneObject, str, Artwork]],
    vocabulary: Vocabulary,
    side_px: int,
) -> None:
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as archive:
        for sprite, (thing, style, artwork) in sorted(sprites.items()):
            picture = _sprite(artwork, side_px)
            buffer = io.BytesIO()
            picture.save(buffer, "WEBP", **_WEBP)
            facts = {
                "name": thing.name,
                "style": style,
                "group": vocabulary.groups.get(thing.name),
                "tier": vocabulary.tiers.get(thing.name),
                "width": picture.width,
                "height": picture.height,
                "license": LICENSES[style],
                "source_path": artwork.source_path,
            }
            facts = {key: value for key, value in facts.items() if value is not None}
            for suffix, content in (
                ("webp", buffer.getvalue()),
                ("json", json.dumps(facts).encode()),
            ):
                member = tarfile.TarInfo(f"{sprite}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def _selection(kind: str, chosen: Collection[T], known: Collection[T]) -> tuple[T, ...]:
    """Returns the chosen ones in the order of the known ones; all of them if none is chosen."""
    for choice in chosen:
        if choice not in known:
            expected = ", ".join(map(str, known)) or f"no {kind}, the vocabulary names none"
            raise SceneDataError(f"{kind} {choice!r}: expected {expected}")
    return tuple(choice for choice in known if choice in chosen or not chosen)


def _objects_of(vocabulary: Vocabulary, tiers: Collection[int]) -> tuple[SceneObject, ...]:
    if not tiers:
        return vocabulary.objects
    chosen = _selection("tier", tiers, sorted(set(vocabulary.tiers.values())))
    return tuple(thing for thing in vocabulary.objects if vocabulary.tiers[thing.name] in chosen)


def _artwork_of(
    style: str, objects: Collection[SceneObject], sources: Mapping[str, Path]
) -> Iterator[tuple[SceneObject, Artwork]]:
    if style not in sources:
        raise SceneDataError(f"style {style!r}: expected its checkout or package, got none")
    artwork = open_artwork(style, sources[style])
    for thing in objects:
        if style not in thing.sprites:
            raise SceneDataError(f"the vocabulary names no sprite of {thing.name!r} in {style!r}")
        code = emoji_code(thing.sprites[style].removeprefix(f"{style}-").split("-"))
        if code not in artwork:
            raise SceneDataError(f"{sources[style]} has no artwork of {thing.name!r} ({code})")
        yield thing, artwork[code]


def _sprite(artwork: Artwork, side_px: int) -> Image.Image:
    """Crops a picture to its content and scales it down to at most `side_px`."""
    picture = artwork.decode()
    box = picture.getchannel("A").point(lambda alpha: 255 * (alpha >= _MIN_ALPHA)).getbbox()
    if box is None:
        raise SceneDataError(f"{artwork.source_path} is wholly transparent")
    picture = picture.crop(box)
    scale = min(1.0, side_px / max(picture.size))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    # RGBa is premultiplied: without it, hidden colours of transparent pixels bleed into edges.
    small = picture.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS)
    return small.convert("RGBA")


def _part(content: dict[str, Any], styles: Collection[str], names: set[str]) -> dict[str, Any]:
    """Returns a vocabulary of fewer styles and objects; `measured` is of another set."""
    part = {key: value for key, value in content.items() if key != "measured"}
    part["styles"] = {style: content["styles"][style] for style in styles}
    part["objects"] = [
        entry | {"sprites": {style: entry["sprites"][style] for style in styles}}
        for entry in content["objects"]
        if entry["name"] in names
    ]
    for key in ("tiers", "groups"):
        if key in content:
            part[key] = {name: of for name, of in content[key].items() if name in names}
    return part


@contextmanager
def _replacing(file: Path) -> Iterator[Path]:
    """Yields a path beside a file to write; what is written there replaces the file at the end."""
    unfinished = file.with_suffix(".unfinished")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            os.replace(unfinished, file)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise SceneDataError(f"{file} cannot be written: {error.strerror or error}") from error
