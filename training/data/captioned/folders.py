"""Folders of pictures: each with a text or JSON file of one name, or a row of metadata.jsonl.

0001.jpg  0001.txt
metadata.jsonl: {"file_name": "0001.jpg", "caption": "a fox"}
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from training.data.captioned.errors import DataError, UnusableExample
from training.data.captioned.index import ABSENT, Entry, Index, caption_text
from training.data.captioned.locations import Location
from training.data.captioned.tars import PICTURE_ENDINGS

METADATA = "metadata.jsonl"
_SIDECAR = -2  # offset of a caption that is a file of its own


@dataclass(frozen=True)
class FolderPart:
    """The examples of a folder.

    Attributes:
        source: Name of the folder.
        folder: It.
        index: Keys are paths in the folder; captions lie in metadata.jsonl or in their own files.
        caption_field: Of JSON captions.
    """

    source: str
    folder: Location
    index: Index
    caption_field: str

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.index)

    def key(self, index: int) -> str:
        """Returns the path of a picture in the folder."""
        return self.index.key(index)

    def digest(self) -> str:
        """Returns a name of the folder's contents."""
        return self.index.digest()

    def picture(self, index: int) -> bytes:
        """Reads the file of a picture."""
        return self._file(self.key(index)).read()

    def caption(self, index: int) -> str:
        """Reads a caption.

        Raises:
            UnusableExample: there is none, or it cannot be read.
        """
        entry, key = self.index.entry(index), PurePosixPath(self.key(index))
        if entry.caption_offset == ABSENT:
            raise UnusableExample(f"no caption: expected a .txt, a .json or a row of {METADATA}")
        if entry.caption_offset == _SIDECAR:
            ending = ".json" if entry.caption_is_json else ".txt"
            content = self._file(str(key.with_suffix(ending))).read()
        else:
            content = self._file(METADATA).read(entry.caption_offset, entry.caption_size)
        return caption_text(content, field=self.caption_field if entry.caption_is_json else None)

    def _file(self, name: str) -> Location:
        path = f"{self.folder.path.rstrip('/')}/{name}"
        return Location(self.folder.filesystem, path, f"{self.folder.url.rstrip('/')}/{name}")


def open_folder(folder: Location, files: Sequence[Location], *, caption_field: str) -> FolderPart:
    """Opens a folder of pictures.

    Args:
        folder: It.
        files: All files in it and in the folders in it.
        caption_field: Of JSON captions.

    Raises:
        DataError: its metadata.jsonl cannot be read.
    """
    root = folder.path.rstrip("/") + "/"
    names = {file.path.removeprefix(root) for file in files}
    rows = dict(_metadata(folder, root)) if METADATA in names else {}

    def entry(name: str) -> Entry:
        if name in rows:
            start, size = rows[name]
            return Entry(0, 0, start, size, caption_is_json=True)
        for ending in (".txt", ".json"):
            if str(PurePosixPath(name).with_suffix(ending)) in names:
                return Entry(0, 0, _SIDECAR, 0, caption_is_json=ending == ".json")
        return Entry(0, 0)

    pictures = sorted(name for name in names if name.lower().endswith(PICTURE_ENDINGS))
    index = Index.of((name, entry(name)) for name in pictures)
    return FolderPart(folder.name, folder, index, caption_field)


def _metadata(folder: Location, root: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yields the file of each row, and where the row lies."""
    offset = 0
    with folder.filesystem.open(root + METADATA, "rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    name = json.loads(line)["file_name"]
                    if not isinstance(name, str):
                        raise TypeError(f"file_name {name!r:.80}")
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    raise DataError(
                        f"{folder.url}: line {number} of {METADATA}: expected a JSON object with a "
                        f"file_name, got {error!r}"
                    ) from error
                yield name, (offset, len(line))
            offset += len(line)
