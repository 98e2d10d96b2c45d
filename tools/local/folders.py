"""Local folders that replace the overlay's volumes."""

import os
from dataclasses import dataclass
from pathlib import Path

from services.stages import STAGES

CHECKPOINTS = tuple(name for stage in STAGES.values() for name in stage.checkpoints)
OF_SUPERRES = ("superres", "tokenizer/high")  # a system without a superres has neither


@dataclass(frozen=True)
class Folders:
    """Local folders for the volumes of pods.

    Attributes:
        checkpoints: Checkpoints of every stage; the claim "checkpoints".
        compiled: Compiled programs; the claim "compiled".
        own: Parent of the folders for emptyDir volumes.
    """

    checkpoints: Path
    compiled: Path
    own: Path

    @property
    def claims(self) -> dict[str, Path]:
        """Folder of every claim, by name."""
        return {"checkpoints": self.checkpoints.absolute(), "compiled": self.compiled.absolute()}


def has_superres(folder: Path) -> bool:
    """Returns whether a folder is that of a system with a superres; an empty one counts as such."""
    found = {name for name in CHECKPOINTS if (folder / name).exists()}
    return not found or not found.isdisjoint(OF_SUPERRES)


def check_checkpoints(folder: Path) -> None:
    """Checks that the folder has a checkpoint of every stage; the servers check its content.

    Raises:
        FileNotFoundError: checkpoints are missing; the message names them.
    """
    needed = [name for name in CHECKPOINTS if has_superres(folder) or name not in OF_SUPERRES]
    missing = [name for name in needed if not (folder / name / "config.json").is_file()]
    if missing:
        what = "checkpoints" if len(missing) == len(needed) else f"checkpoint of {missing}"
        raise FileNotFoundError(
            f"no {what} in {folder}: expected a folder that training has filled; "
            "name it with --checkpoints"
        )


def compiled_folder(own: Path) -> Path:
    """Returns the user's cache folder of compiled programs; one in `own` for a user without home.

    Not a shared folder for temporary files: whoever writes compiled programs runs code.

    Source: XDG Base Directory Specification, "Environment variables".
    """
    if folder := os.environ.get("MUSE_COMPILATION_CACHE"):
        return Path(folder)
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # a relative one is to be ignored
        try:
            cache = Path.home() / ".cache"
        except RuntimeError:
            return own / "compiled"
    return (cache / "muse" if cache.is_absolute() else own) / "compiled"
