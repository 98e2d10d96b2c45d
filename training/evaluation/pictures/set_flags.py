"""Flags of the commands that measure sets of pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from training.evaluation.pictures.reading import PictureSet, open_pictures


@dataclass(frozen=True, kw_only=True)
class PictureFlags:
    """How the pictures of a set are read.

    Attributes:
        side_px: Side that pictures are cropped and scaled to, before a network scales them to its
            own.
        limit: Pictures to take of each set, the first; all if not set.
    """

    side_px: int = 256
    limit: int | None = None

    def open(self, source: Path) -> PictureSet:
        """Opens a set; errors as of `open_pictures`."""
        return open_pictures(source, side_px=self.side_px, limit=self.limit)


@dataclass(frozen=True)
class TwoSets:
    """The sets that a distance is measured between.

    Attributes:
        real: Folder of pictures, of training data (tars, Parquet, ArrayRecord), or of a generated
            set.
        generated: Another such folder.
    """

    real: Path
    generated: Path


Pictures = Annotated[PictureFlags, Parameter(name="*")]
Sets = Annotated[TwoSets, Parameter(name="*")]
Out = Annotated[Path, Parameter(help="Folder of the measurement, as a JSON file.")]
DEFAULT_PICTURES = PictureFlags()
DEFAULT_OUT = Path("out/evaluation")
