"""Sets of pictures to measure: a generated set, data to train on, or a folder of picture files."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from services.pictures.errors import PictureError
from services.pictures.files import read_picture
from training.data.captioned.errors import UnusableExample
from training.data.captioned.reading import LIMITS, central_square
from training.data.sources import NO_DATA_FLAGS
from training.evaluation.pictures.manifest import MANIFEST, read_manifest

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
DATA = (".tar", ".tar.gz", ".tgz", ".parquet", ".array_record")


@dataclass(frozen=True, kw_only=True)
class PictureSet:
    """Pictures of one size, read when they are needed.

    Attributes:
        names: Of the pictures, in order.
        read: Reads the picture at an index.
        caption: Returns the caption of the picture at an index; None if it has none.
        tags: Of each picture, from the prompt file of a generated set.
        cache: Folder that `read` needs, which goes with the set.
    """

    names: tuple[str, ...]
    read: Callable[[int], UInt8[np.ndarray, "s s 3"]]
    caption: Callable[[int], str | None]
    tags: tuple[Mapping[str, Any], ...]
    cache: "tempfile.TemporaryDirectory[str] | None" = None

    def __len__(self) -> int:
        """Returns the number of pictures."""
        return len(self.names)

    def batches(self, size: int) -> Iterator[UInt8[np.ndarray, "B s s 3"]]:
        """Yields all pictures in order; the last batch may be smaller than `size`."""
        for start in range(0, len(self), size):
            indices = range(start, min(start + size, len(self)))
            yield np.stack([self.read(index) for index in indices])


def open_pictures(source: Path, *, side_px: int, limit: int | None = None) -> PictureSet:
    """Opens a set; each picture is cropped to its centred square and scaled.

    Args:
        source: Folder with a manifest of `generate`, with tars, Parquet or ArrayRecord
            files, or with picture files,
            also in folders below it; the caption of a file is the .txt beside it.
        side_px: Side of the pictures.
        limit: Pictures to take, the first in the order of their names; all if None.

    Raises:
        ValueError: the folder is missing or has no picture, or a number is below 1.
    """
    if side_px < 1 or (limit is not None and limit < 1):
        raise ValueError(f"expected a side and a number of at least 1, got {side_px} and {limit}")
    if not source.is_dir():
        raise ValueError(f"expected a folder of pictures, got {source}, which is none")
    if (source / MANIFEST).exists():
        return _generated(source, side_px, limit)
    if any(file.name.endswith(DATA) for file in source.iterdir()):
        return _data(source, side_px, limit)
    return _files(source, side_px, limit)


def _generated(folder: Path, side_px: int, limit: int | None) -> PictureSet:
    entries = read_manifest(folder)[:limit]
    if not entries:
        raise ValueError(f"expected pictures in the manifest of {folder}, got none")
    return PictureSet(
        names=tuple(entry.file for entry in entries),
        read=lambda index: _square(
            (folder / entries[index].file).read_bytes(), entries[index].file, side_px
        ),
        caption=lambda index: entries[index].prompt,
        tags=tuple(entry.tags for entry in entries),
    )


def _data(folder: Path, side_px: int, limit: int | None) -> PictureSet:
    """Opens what training reads: tars, Parquet or ArrayRecord files."""
    cache = tempfile.TemporaryDirectory()
    files = NO_DATA_FLAGS.open(str(folder), Path(cache.name))
    count = min(len(files), limit or len(files))

    def read(index: int) -> UInt8[np.ndarray, "s s 3"]:
        name = "/".join(files.name(index))
        try:
            return _square(files.picture(index), name, side_px)
        except UnusableExample as error:
            raise ValueError(f"{name}: {error}") from error

    def caption(index: int) -> str | None:
        try:
            return files.caption(index)
        except UnusableExample:
            return None

    return PictureSet(
        names=tuple("/".join(files.name(index)) for index in range(count)),
        read=read,
        caption=caption,
        tags=({},) * count,
        cache=cache,
    )


def _files(folder: Path, side_px: int, limit: int | None) -> PictureSet:
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)[:limit]
    if not files:
        raise ValueError(
            f"expected pictures ({', '.join(SUFFIXES)}) or data files ({', '.join(DATA)}) in "
            f"{folder}, found none"
        )

    def caption(index: int) -> str | None:
        words = files[index].with_suffix(".txt")
        try:
            return words.read_text(encoding="utf-8").strip() if words.exists() else None
        except UnicodeDecodeError as error:
            raise ValueError(f"{words}: expected a prompt in UTF-8, got {error}") from error

    return PictureSet(
        names=tuple(str(file.relative_to(folder)) for file in files),
        read=lambda index: _square(files[index].read_bytes(), str(files[index]), side_px),
        caption=caption,
        tags=({},) * len(files),
    )


def _square(content: bytes, name: str, side_px: int) -> UInt8[np.ndarray, "s s 3"]:
    try:
        return central_square(read_picture(content, LIMITS).rgb, side_px)
    except PictureError as error:
        raise ValueError(f"{name}: {error}") from error
