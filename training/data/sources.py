"""What a run learns from: scenes composed from sprites."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from training.data.scene_batches import SceneBatches
from training.data.sprites import load_sprites


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
    """Opens a folder of sprites.

    Args:
        data: The folder.
        side_px: Side of the high-resolution pictures; the low-resolution ones have half of it.
        batch_size: Pictures a step.
        seed: Of the order and every choice.
    """
    return SceneBatches(
        sprites=load_sprites(data), side_px=side_px, batch_size=batch_size, seed=seed
    )
