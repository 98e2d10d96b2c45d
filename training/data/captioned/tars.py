"""WebDataset tars: files of one key are one example.

    000001.jpg  000001.txt  000001.json

The key is the path up to the first dot of the file's name. A caption is the text file's, or a field
of the JSON. A tar is read once from start to end to index it; a compressed one (.tar.gz, .tgz) has
no random access, so it is unpacked once into the run's cache.
"""

import gzip
import logging
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from posixpath import dirname, join

from training.data.captioned.cache import DataCache
from training.data.captioned.errors import DataError, UnusableExample
from training.data.captioned.index import ABSENT, Entry, Index, caption_text
from training.data.captioned.locations import Location, locate

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TarPart:
    """The examples of one tar.

    Attributes:
        source: Name of the file that the examples came from.
        location: The uncompressed tar.
        index: Where the examples lie in it.
        caption_field: Of JSON captions.
    """

    source: str
    location: Location
    index: Index
    caption_field: str

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.index)

    def key(self, index: int) -> str:
        """Returns the key of an example."""
        return self.index.key(index)

    def digest(self) -> str:
        """Returns a name of the tar's contents."""
        return self.index.digest()

    def picture(self, index: int) -> bytes:
        """Reads the file of a picture.

        Raises:
            UnusableExample: there is none.
        """
        entry = self.index.entry(index)
        if entry.offset == ABSENT:
            raise UnusableExample(f"no picture: expected one of {', '.join(PICTURE_ENDINGS)}")
        return self.location.read(entry.offset, entry.size)

    def caption(self, index: int) -> str:
        """Reads a caption.

        Raises:
            UnusableExample: there is none, or it cannot be read.
        """
        entry = self.index.entry(index)
        if entry.caption_offset == ABSENT:
            raise UnusableExample("no caption: expected a .txt or .json")
        content = self.location.read(entry.caption_offset, entry.caption_size)
        return caption_text(content, field=self.caption_field if entry.caption_is_json else None)


def open_tar(tar: Location, cache: DataCache, *, caption_field: str) -> TarPart:
    """Opens a tar, unpacked and indexed in the cache if it is seen for the first time.

    Raises:
        DataError: it is cut, or no tar.
    """
    plain = tar
    if tar.name.lower().endswith((".gz", ".tgz")):
        plain = locate(str(cache.made(tar, ".tar", lambda to: _unpack(tar, to))))
    return indexed_tar(plain, cache, source=tar.name, caption_field=caption_field)


def indexed_tar(tar: Location, cache: DataCache, *, source: str, caption_field: str) -> TarPart:
    """Opens an uncompressed tar, with an index from the cache or made now.

    Raises:
        DataError: it is cut, or no tar.
    """

    def write(file: Path) -> None:
        Index.of(_examples(tar)).save(file)

    index = Index.load(cache.made(tar, ".index.npz", write))
    return TarPart(source, tar, index, caption_field)


def _unpack(packed: Location, to: Path) -> None:
    try:
        with (
            packed.filesystem.open(packed.path, "rb") as stream,
            gzip.open(stream) as plain,
            to.open("wb") as copy,
        ):
            shutil.copyfileobj(plain, copy, 1 << 20)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{packed.url} is cut or no gzip file: {error}") from error
    logger.warning(
        "%s has no random access: it was unpacked into %s, %.1f MB",
        packed.url,
        to.parent,
        to.stat().st_size / 1e6,
    )


def _examples(tar: Location) -> Iterator[tuple[str, Entry]]:
    files: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with (
            tar.filesystem.open(tar.path, "rb") as stream,
            tarfile.open(fileobj=stream, mode="r:") as archive,
        ):
            for member in archive:
                name = member.name.rpartition("/")[2]
                if not member.isfile() or name.startswith("."):
                    continue
                stem, dot, ending = name.partition(".")
                key = join(dirname(member.name), stem)
                place = (member.offset_data, member.size)
                files.setdefault(key, {})[dot + ending.lower()] = place
            # tarfile takes a header that it cannot read for the end.
            stream.seek(archive.offset)
            if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError(f"no header at byte {archive.offset}")
    except tarfile.TarError as error:
        raise DataError(
            f"{tar.url} is cut or no tar: {error}: copy it again, or take it out of the folder"
        ) from error
    for key, by_ending in files.items():
        picture = next((by_ending[each] for each in PICTURE_ENDINGS if each in by_ending), None)
        is_json = ".txt" not in by_ending
        caption = by_ending.get(".json" if is_json else ".txt")
        yield key, Entry(*(picture or (ABSENT, 0)), *(caption or (ABSENT, 0)), is_json)
