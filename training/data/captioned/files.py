"""Opens data of any kind of files as one random-access sequence of captioned pictures."""

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Protocol

from training.data.captioned.array_records import open_array_record
from training.data.captioned.cache import DataCache
from training.data.captioned.errors import DataError
from training.data.captioned.folders import open_folder
from training.data.captioned.locations import Location, list_files, locate
from training.data.captioned.parquet import open_parquet
from training.data.captioned.tars import PICTURE_ENDINGS, open_tar


class Part(Protocol):
    """The examples of one file, or of one folder of pictures."""

    @property
    def source(self) -> str:
        """Name of the file or folder."""

    def __len__(self) -> int:
        """Returns the number of examples."""

    def key(self, index: int) -> str:
        """Returns the name of an example in its file."""

    def picture(self, index: int) -> bytes:
        """Reads the file of a picture; raises UnusableExample without one."""

    def caption(self, index: int) -> str:
        """Reads a caption; raises UnusableExample without one."""

    def digest(self) -> str:
        """Returns a name of the contents."""


class PictureFiles:
    """The examples of several parts, one after another.

    Attributes:
        url: Where they come from.
    """

    def __init__(self, url: str, parts: Sequence[Part]) -> None:
        """Joins parts.

        Raises:
            DataError: there is no example.
        """
        self.url, self._parts = url, parts
        self._ends = list(accumulate(len(part) for part in parts))
        if not self._ends or not self._ends[-1]:
            raise DataError(f"expected captioned pictures in {url}, found none")

    def __len__(self) -> int:
        """Returns the number of examples."""
        return self._ends[-1]

    def _place(self, index: int) -> tuple[Part, int]:
        part = bisect_right(self._ends, index)
        return self._parts[part], index - (self._ends[part - 1] if part else 0)

    def name(self, index: int) -> tuple[str, str]:
        """Returns the file of an example, and its key there."""
        part, row = self._place(index)
        return part.source, part.key(row)

    def picture(self, index: int) -> bytes:
        """Reads the file of a picture.

        Raises:
            UnusableExample: there is none.
        """
        part, row = self._place(index)
        return part.picture(row)

    def caption(self, index: int) -> str:
        """Reads a caption.

        Raises:
            UnusableExample: there is none, or it cannot be read.
        """
        part, row = self._place(index)
        return part.caption(row)

    def digest(self) -> str:
        """Returns a name of all contents, for a run that goes on with the same data only."""
        names = " ".join(f"{part.source} {part.digest()}" for part in self._parts)
        return hashlib.sha256(names.encode()).hexdigest()[:16]


def open_files(
    url: str, cache: DataCache, *, picture_field: str, caption_field: str
) -> PictureFiles:
    """Opens a folder of tars, Parquet files, ArrayRecord files or pictures, or one such file.

    Args:
        url: A path, or a URL of fsspec such as gs://bucket/folder.
        cache: Where indexes and unpacked copies are kept.
        picture_field: Column of Parquet, feature of ArrayRecord.
        caption_field: Column of Parquet, feature of ArrayRecord, field of JSON.

    Raises:
        DataError: it is missing, of another kind or of several, or a file cannot be read.
    """
    folder = locate(url)
    files = list_files(folder, recursive=False)
    kinds = Counter(kind for kind in map(_kind, files) if kind)
    if len(kinds) > 1:
        found = " and ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items()))
        raise DataError(f"{url}: expected files of one kind, got {found}: give each its own folder")
    if not kinds:
        return PictureFiles(url, [_folder(folder, caption_field)])
    both = {"picture_field": picture_field, "caption_field": caption_field}
    openers: dict[str, Callable[[Location], Part]] = {
        "tar": lambda file: open_tar(file, cache, caption_field=caption_field),
        "Parquet": lambda file: open_parquet(file, cache, **both),
        "ArrayRecord": lambda file: open_array_record(file, cache, **both),
    }
    return PictureFiles(url, [openers[kind](file) for file in files if (kind := _kind(file))])


def _folder(folder: Location, caption_field: str) -> Part:
    files = list_files(folder, recursive=True)
    part = open_folder(folder, files, caption_field=caption_field)
    if not len(part) or files == [folder]:
        raise DataError(
            f"expected WebDataset tars (.tar, .tar.gz, .tgz), Parquet files (.parquet), "
            f"ArrayRecord files (.array_record) or pictures ({', '.join(PICTURE_ENDINGS)}) in "
            f"{folder.url}, found none"
        )
    return part


def _kind(file: Location) -> str | None:
    name = file.name.lower()
    if name.endswith((".tar", ".tar.gz", ".tgz")):
        return "tar"
    if name.endswith(".parquet"):
        return "Parquet"
    # TensorFlow Datasets name shards cats-train.array_record-00000-of-00064.
    if ".array_record" in name or name.endswith(".arrayrecord"):
        return "ArrayRecord"
    return None
