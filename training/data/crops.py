"""Crops of training pictures for a tokenizer, which never looks further than a few tokens."""

import numpy as np
from jaxtyping import UInt8

TRIES = 4  # windows looked at for each crop


def busy_crops(
    images: UInt8[np.ndarray, "B S S 3"],
    side: int,
    *,
    step_px: int,
    random: np.random.Generator,
    skipped: int = 0,
) -> UInt8[np.ndarray, "B s s 3"]:
    """Crops each picture to the busiest of a few random windows.

    More than half of a composed scene is plain background, from which a tokenizer learns nothing
    after a few steps; the window with the greatest standard deviation shows an object.

    Args:
        images: Pictures of one size.
        side: Side of a crop in pixels, at most that of the pictures.
        step_px: Windows start at multiples of this: the pixels of a token, so that objects that
            start at tokens still do.
        random: Source of chance.
        skipped: Pictures of the batch before these, which other processes crop.
    """
    places = (images.shape[1] - side) // step_px + 1
    random.integers(places, size=(skipped, TRIES, 2))  # drawn for the windows of those

    def window(image: UInt8[np.ndarray, "S S 3"]) -> UInt8[np.ndarray, "s s 3"]:
        top, left = (int(at) * step_px for at in random.integers(places, size=2))
        return image[top : top + side, left : left + side]

    return np.stack(
        [
            max((window(image) for _ in range(TRIES)), key=lambda part: part.std())
            for image in images
        ]
    )
