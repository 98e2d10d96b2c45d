"""Folders of this machine that stand for the overlay's volumes."""

import os
from dataclasses import dataclass
from pathlib import Path

from services.stages import STAGES

PLACES = tuple(place for stage in STAGES.values() for place in stage.checkpoints)


@dataclass(frozen=True)
class Folders:
    """What is mounted.

    Attributes:
        checkpoints: Of every stage; the claim "checkpoints".
        compiled: Compiled programs; the claim "compiled".
        own: Where every pod gets a folder for what is its own.
    """

    checkpoints: Path
    compiled: Path
    own: Path

    @property
    def claims(self) -> dict[str, Path]:
        """Folder of every claim that can be mounted."""
        return {"checkpoints": self.checkpoints.absolute(), "compiled": self.compiled.absolute()}


def check_checkpoints(folder: Path) -> None:
    """Checks that every stage has a checkpoint; what is in it is the servers' to check.

    Raises:
        FileNotFoundError: one has none; names all that are missing.
    """
    missing = [place for place in PLACES if not (folder / place / "config.json").is_file()]
    if missing:
        what = "checkpoints" if len(missing) == len(PLACES) else f"checkpoint of {missing}"
        raise FileNotFoundError(
            f"no {what} in {folder}: expected a folder that training has filled; "
            "name it with --checkpoints"
        )


def compiled_folder() -> Path:
    """Returns the user's folder of compiled programs, by which a second start is fast."""
    if said := os.environ.get("MUSE_COMPILATION_CACHE"):
        return Path(said)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "muse" / "compiled"
