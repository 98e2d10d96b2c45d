"""What a run learns from: scenes composed from sprites, or WebDataset tars."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from training.data.scene_batches import SceneBatches
from training.data.sprites import has_sprites, load_sprites
from training.data.webdataset import WebDatasetBatches, WebDatasetSource


class ImageSource(Protocol):
    """Captioned pictures, batch by batch; every batch a function of the step."""

    def captioned(self, step: int) -> tuple[UInt8[np.ndarray, "B h w 3"], list[str]]:
        """Returns the high-resolution pictures of a step and their captions."""

    def high(self, step: int) -> UInt8[np.ndarray, "B h w 3"]:
        """Returns the high-resolution pictures of a step."""

    def low(self, step: int) -> UInt8[np.ndarray, "B h2 w2 3"]:
        """Returns the low-resolution pictures of a step."""

    def captions(self, seed: int) -> Iterator[str]:
        """Yields captions without end."""


def open_source(data: Path, *, side_px: int, batch_size: int, seed: int) -> ImageSource:
    """Opens a folder: of sprites if it has a scene vocabulary, else of WebDataset tars.

    Args:
        data: The folder.
        side_px: Side of the high-resolution pictures; the low-resolution ones have half of it.
        batch_size: Pictures a step.
        seed: Of the order and every choice.

    Raises:
        SceneDataError: the sprites or their vocabulary are incomplete.
        WebDatasetError: there is no tar, or one holds something else than captioned pictures.
    """
    if has_sprites(data):
        return SceneBatches(
            sprites=load_sprites(data), side_px=side_px, batch_size=batch_size, seed=seed
        )
    source = WebDatasetSource(data, side_px=side_px)
    return WebDatasetBatches(source, batch_size=batch_size, seed=seed)
