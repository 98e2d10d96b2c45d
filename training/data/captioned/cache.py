"""The folder where a run keeps indexes of tars and copies of files that have no random access."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from training.data.captioned.locations import Location
from training.whole_files import whole_file


@dataclass(frozen=True)
class DataCache:
    """Files made of data files, each made once.

    Attributes:
        folder: Where they lie; several processes may share it.
    """

    folder: Path

    def made(self, source: Location, ending: str, write: Callable[[Path], None]) -> Path:
        """Returns the file made of a source; makes it if the source is new or has changed.

        Args:
            source: A file.
            ending: Of the file's name; each way of making has its own.
            write: Makes the file at a path; another process sees all of the file or nothing.
        """
        identity = f"{source.url} {source.filesystem.ukey(source.path)}"
        digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
        file = self.folder / f"{source.name}-{digest}{ending}"
        if not file.is_file():
            with whole_file(file) as part:
                write(part)
        return file
