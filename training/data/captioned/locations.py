"""Folders of data, on this machine or in a bucket, by fsspec: `data/`, `gs://...`, `s3://...`."""

from dataclasses import dataclass
from posixpath import basename

import fsspec
from fsspec import AbstractFileSystem

from training.data.captioned.errors import DataError


@dataclass(frozen=True)
class Location:
    """A file or folder of a file system.

    Attributes:
        filesystem: Of fsspec.
        path: Within the file system, without its scheme.
        url: As it was given, for messages.
    """

    filesystem: AbstractFileSystem
    path: str
    url: str

    @property
    def name(self) -> str:
        """The last part of its path."""
        return basename(self.path.rstrip("/"))

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Reads a part of a file.

        Args:
            offset: Of its first byte.
            size: Of the part in bytes; None for all that follows.

        Raises:
            OSError: the file is gone, or the service that holds it fails.
        """
        if size == 0:
            return b""  # HTTP has no empty ranges: S3 sends the whole file
        whole = size is None and not offset  # S3 refuses any range of an empty file
        start = None if whole else offset
        end = None if size is None else offset + size
        content: bytes = self.filesystem.cat_file(self.path, start=start, end=end)
        return content


def locate(url: str) -> Location:
    """Returns the location of a path or URL; looks nothing up.

    Raises:
        DataError: its scheme is unknown, or needs a package that is not installed.
    """
    scheme = url.partition("://")[0]
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise DataError(
            f"{url}: {scheme}:// needs a package that is missing: pip install -e '.[data]'"
        ) from error
    except ValueError as error:
        raise DataError(
            f"{url}: expected a path, gs://, s3:// or another scheme of fsspec, got {scheme}://"
        ) from error
    return Location(filesystem, path, url)


def list_files(folder: Location, *, recursive: bool) -> list[Location]:
    """Lists the files of a folder by name.

    Hidden ones, such as `._a.tar`, are left out, and so is what lies in hidden folders.

    Args:
        folder: It; a file is listed as itself.
        recursive: Whether files of the folders in it count too.

    Raises:
        DataError: it is missing or cannot be listed.
    """
    try:
        if folder.filesystem.isfile(folder.path):
            return [folder]
        paths = folder.filesystem.find(folder.path, maxdepth=None if recursive else 1)
    except Exception as error:  # each service's package has errors of its own
        raise DataError(f"{folder.url} cannot be listed: {error}") from error
    if not paths and not folder.filesystem.exists(folder.path):
        raise DataError(f"expected a folder of captioned pictures, got {folder.url}: it is missing")
    root = folder.path.rstrip("/") + "/"
    return [
        Location(folder.filesystem, path, folder.filesystem.unstrip_protocol(path))
        for path in sorted(paths)
        if not any(part.startswith((".", "_")) for part in path.removeprefix(root).split("/"))
    ]
