"""What a run learns from: scenes composed from sprites, or captioned pictures from files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
from cyclopts import Parameter
from jaxtyping import UInt8

from training.data.captioned.batches import CaptionedBatches
from training.data.captioned.cache import DataCache
from training.data.captioned.errors import DataError
from training.data.captioned.files import PictureFiles, open_files
from training.data.captioned.filters import Filters
from training.data.captioned.log import SKIPPED_FILE, ExampleLog
from training.data.captioned.reading import ExampleReader
from training.data.captions import Caption
from training.data.scene_batches import SceneBatches
from training.data.scenes import Board
from training.data.sprites import has_sprites, load_sprites
from training.resuming import check_same_run

NO_FILTERS = Filters()


class ImageSource(Protocol):
    """Captioned pictures, batch by batch; every batch a function of the step."""

    def captioned(self, step: int) -> tuple[UInt8[np.ndarray, "B h w 3"], list[str]]:
        """Returns the high-resolution pictures of a step and their captions."""

    def images(self, step: int) -> UInt8[np.ndarray, "B h w 3"]:
        """Returns the high-resolution pictures of a step."""

    def captions(self, seed: int) -> Iterator[Caption]:
        """Yields captions without end, the same ones for the same seed."""

    @property
    def label_classes(self) -> Mapping[str, int]:
        """Classes of each label that the captions' nouns have; none if nouns are not labelled."""

    @property
    def subjects(self) -> Mapping[str, Sequence[str]]:
        """Returns what captions name, by kind, such as "objects"; nothing if that is not known."""


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """Flags of commands that read captioned pictures from files, and `objects` for sprites.

    Attributes:
        objects: Of sprites: how many objects of the vocabulary scenes show, from its first; the
            preset's number by default.
        picture_field: Column (Parquet) or feature (ArrayRecord) of encoded pictures.
        caption_field: Column, feature or JSON field of captions.
        data_cache: Folder of indexes of tars, and of unpacked copies of .tar.gz and Parquet files;
            OUT/data-cache by default. Commands that share one unpack once.
        max_skipped_share: Share of unreadable examples past which the command ends, 0 to 1; it is
            judged from 1,000 examples on.
        filters: Examples to leave out.
    """

    objects: int | None = None
    picture_field: str = "image"
    caption_field: str = "caption"
    data_cache: Path | None = None
    max_skipped_share: float = 0.05
    filters: Annotated[Filters, Parameter(name="*")] = NO_FILTERS

    def open(self, data: str, out: Path) -> PictureFiles:
        """Opens a folder or URL of tars, Parquet files, ArrayRecord files or pictures.

        Args:
            data: It.
            out: Folder of the run.

        Raises:
            DataError: `objects` is set; the data are missing, of another kind, or cannot be read.
        """
        if self.objects is not None:
            raise DataError(
                f"objects: expected none for pictures from files, got {self.objects}: only scenes "
                f"that are composed of sprites have a number of objects, and {data} has no sprites"
            )
        return open_files(
            data,
            DataCache(self.data_cache or out / "data-cache"),
            picture_field=self.picture_field,
            caption_field=self.caption_field,
        )

    def reader(self, files: PictureFiles, *, side_px: int, log: Path) -> ExampleReader:
        """Returns what reads the examples of opened files.

        Args:
            files: What `open` returned.
            side_px: Side of the pictures.
            log: File that names the skipped examples.

        Raises:
            DataError: a flag has a value that is out of range.
        """
        return ExampleReader(
            files=files,
            filters=self.filters,
            side_px=side_px,
            log=ExampleLog(log, self.max_skipped_share),
        )


NO_DATA_FLAGS = DataFlags()


def open_source(
    data: str,
    *,
    out: Path,
    flags: DataFlags,
    side_px: int,
    batch_size: int,
    seed: int,
    board: Board,
    objects: int | None = None,
    rows: slice = slice(None),
) -> ImageSource:
    """Opens a folder of sprites if it has a scene vocabulary, else captioned pictures from files.

    Args:
        data: The folder, or a URL.
        out: Folder of the run: the cache, the skipped examples, and what data it began with.
        flags: How to read captioned pictures.
        side_px: Side of the high-resolution pictures.
        batch_size: Pictures a step, of all processes together.
        seed: Of the order and every choice.
        board: Grid that scenes are laid out on; files have none.
        objects: How many of the vocabulary's objects scenes show, from its first, unless a flag
            says it; all if None.
        rows: Those of each batch that this process reads.

    Raises:
        SceneDataError: the sprites or their vocabulary are incomplete, or of fewer objects.
        DataError: the data are missing, of another kind, or cannot be read.
        ResumeError: the run began with other data, filters or number of objects.
    """
    if has_sprites(Path(data)):
        shown = objects if flags.objects is None else flags.objects
        sprites = load_sprites(Path(data), objects=shown)
        out.mkdir(parents=True, exist_ok=True)
        check_same_run(out / "data.json", {"objects": len(sprites.vocabulary.objects)})
        return SceneBatches(
            sprites=sprites,
            board=board,
            side_px=side_px,
            batch_size=batch_size,
            seed=seed,
            rows=rows,
        )
    files = flags.open(data, out)
    reader = flags.reader(files, side_px=side_px, log=out / SKIPPED_FILE)
    batches = CaptionedBatches(reader, batch_size=batch_size, seed=seed, rows=rows)
    out.mkdir(parents=True, exist_ok=True)
    check_same_run(out / "data.json", batches.description)
    return batches
