"""Files and folders that are written whole or not at all, though several hosts share a folder."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """Yields a path beside a file to write; at the end it takes the file's place.

    Each process has a path of its own. Its name has the host too: containers of different hosts
    mostly have the same process id. After an error the path is removed and the file is as before.

    Args:
        file: The file; its folder is made if it is missing.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{socket.gethostname()}-{os.getpid()}.part")
    try:
        yield part
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yields a new folder beside a folder to write; at the end it takes that name.

    Args:
        folder: The folder, which is not there yet; its parent is made if it is missing. After an
            error nothing of it is left.

    Raises:
        ValueError: there is something of that name.
    """
    if folder.exists():
        raise ValueError(f"expected a new folder to write, got {folder}, which is there already")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f"{folder.name}.{socket.gethostname()}-{os.getpid()}.part")
    part.mkdir()
    try:
        yield part
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part)
        raise
