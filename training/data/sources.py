"""What a run learns from: scenes composed from sprites, or WebDataset tars."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from training.data.captions import Caption
from training.data.scene_batches import SceneBatches
from training.data.scenes import Board
from training.data.sprites import has_sprites, load_sprites
from training.data.webdataset import WebDatasetBatches, WebDatasetSource


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


def open_source(
    data: Path,
    *,
    side_px: int,
    batch_size: int,
    seed: int,
    board: Board,
    objects: int | None = None,
) -> ImageSource:
    """Opens a folder: of sprites if it has a scene vocabulary, else of WebDataset tars.

    Args:
        data: The folder.
        side_px: Side of the high-resolution pictures.
        batch_size: Pictures a step.
        seed: Of the order and every choice.
        board: Grid that scenes are laid out on; tars have none.
        objects: How many of the vocabulary's objects scenes show, from its first; all if None.

    Raises:
        SceneDataError: the sprites or their vocabulary are incomplete, or of fewer objects.
        WebDatasetError: there is no tar, or one holds something else than captioned pictures.
    """
    if has_sprites(data):
        return SceneBatches(
            sprites=load_sprites(data, objects=objects),
            board=board,
            side_px=side_px,
            batch_size=batch_size,
            seed=seed,
        )
    source = WebDatasetSource(data, side_px=side_px)
    return WebDatasetBatches(source, batch_size=batch_size, seed=seed)
