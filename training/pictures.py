"""Pixels to numbers and back, and sheets of several pictures."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image


def to_float(images: UInt8[Array | np.ndarray, "*B h w 3"]) -> Float[Array, "*B h w 3"]:
    """Maps bytes to [-1, 1]."""
    return jnp.asarray(images, jnp.float32) / 127.5 - 1.0


def to_uint8(images: Float[np.ndarray, "*B h w 3"]) -> UInt8[np.ndarray, "*B h w 3"]:
    """Maps [-1, 1] to bytes; what lies outside is clipped."""
    return np.round(np.clip((images + 1.0) * 127.5, 0, 255)).astype(np.uint8)


def contact_sheet(
    images: Sequence[UInt8[np.ndarray, "h w 3"]], *, columns: int, gap_px: int = 4
) -> Image.Image:
    """Lays pictures of one size out in rows, on white.

    Args:
        images: At least one picture.
        columns: Pictures in a row.
        gap_px: White pixels around each.
    """
    height, width = images[0].shape[:2]
    rows = -(-len(images) // columns)
    sheet = Image.new(
        "RGB",
        (columns * (width + gap_px) + gap_px, rows * (height + gap_px) + gap_px),
        "white",
    )
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        place = (gap_px + column * (width + gap_px), gap_px + row * (height + gap_px))
        sheet.paste(Image.fromarray(np.asarray(image)), place)
    return sheet
