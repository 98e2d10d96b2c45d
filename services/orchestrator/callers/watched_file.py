"""A file that is read again when it changes, such as a Secret that Kubernetes mounts."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)
Value = TypeVar("Value")
Stamp = tuple[int, ...]


class WatchedFile(Generic[Value]):
    """The parsed content of a file; the last good content, if the file vanishes or is damaged."""

    def __init__(self, path: Path, parse: Callable[[str], Value]) -> None:
        """Reads the file.

        Args:
            path: The file.
            parse: Parses its text; raises a ValueError whose message repeats nothing secret.

        Raises:
            ValueError: the file cannot be read, or does not parse.
        """
        self._path, self._parse = path, parse
        self._stamp = self._stamp_now()
        self.value = self._read()

    def refresh(self) -> None:
        """Reads the file again if it changed; says once if it cannot be used. It may block."""
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.value = self._read()
        except ValueError as error:
            logger.error("%s; its last good content stays in force", error)
        else:
            logger.info("%s was read again", self._path)

    def _read(self) -> Value:
        try:
            return self._parse(self._path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"{self._path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError:
            raise ValueError(f"{self._path}: expected text in UTF-8") from None
        except ValueError as error:
            raise ValueError(f"{self._path}: {error}") from None

    def _stamp_now(self) -> Stamp | None:
        """Returns what differs after a change; Kubernetes changes a link, and so the inode."""
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
