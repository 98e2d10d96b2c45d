"""Masks: which tokens they leave unknown, and how new pixels meet old ones at their seam."""

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from services.orchestrator.edits.letterbox import Place


def touched_cells(pixels: Bool[np.ndarray, "S S"], grid: int) -> Bool[np.ndarray, "g g"]:
    """Returns the cells of a grid that any marked pixel lies in.

    Args:
        pixels: On the canvas, whose side is a multiple of the grid's.
        grid: Cells along a side.
    """
    cell = pixels.shape[0] // grid
    return np.asarray(pixels.reshape(grid, cell, grid, cell).any(axis=(1, 3)))


def unknown_cells(
    masked: Bool[np.ndarray, "S S"], inside: Bool[np.ndarray, "S S"], grid: int
) -> Bool[np.ndarray, "g g"]:
    """Returns the tokens to paint: any masked pixel lies in them, or none of the picture's.

    Args:
        masked: Masked pixels on the canvas.
        inside: Pixels of the canvas that the picture covers.
        grid: Tokens along a side.
    """
    return touched_cells(masked, grid) | ~touched_cells(inside, grid)


def seam_weights(masked: Bool[np.ndarray, "S S"], feather_px: int) -> Float[np.ndarray, "S S"]:
    """Returns how much of the new shows: 0 outside the mask, rising to 1 inside it.

    The edge of the canvas is no seam. Where the mask is narrower than twice the feather the new
    still shows fully in its middle.

    Args:
        masked: The pixels to repaint.
        feather_px: Pixels of the mask, from its seam, over which it rises.
    """
    weights, rest = masked.astype(np.float32), masked
    for _ in range(feather_px):
        rest = ~_grown(~rest)
        weights += rest
    highest = weights
    for _ in range(feather_px):
        highest = _grown(highest)
    return weights / np.maximum(highest, 1)


def composite(
    old: UInt8[np.ndarray, "h w 3"],
    new: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"],
    weights: UInt8[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the old picture with the new one where it is masked; other pixels stay equal.

    Args:
        old: The picture as it was.
        new: The picture as it was painted.
        mask: Where pixels may change.
        weights: How much of the new shows, 0 to 255.
    """
    shown = Image.fromarray(np.where(mask, weights, 0).astype(np.uint8))
    return np.asarray(Image.composite(Image.fromarray(new), Image.fromarray(old), shown))


def seamless(
    old: UInt8[np.ndarray, "h w 3"],
    canvas: UInt8[np.ndarray, "S S 3"],
    mask: Bool[np.ndarray, "h w"],
    place: Place,
    feather_px: int,
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the old picture with what was painted on the canvas where it is masked.

    Args:
        old: The picture as it was.
        canvas: What was painted.
        mask: Pixels of the picture that were to be painted.
        place: Of the picture on the canvas.
        feather_px: Pixels of the canvas, inside the mask, over which the new fades in.
    """
    masked = place.mask_onto(mask) | ~place.inside
    weights = place.weights_off(seam_weights(masked, feather_px))
    return composite(old, place.off(canvas), mask, weights)


def _grown(values: np.ndarray) -> np.ndarray:
    """Returns the largest value within a pixel's 3 x 3 neighbourhood."""
    lowest = values.dtype.type(0)
    padded = np.pad(values, 1, constant_values=lowest)
    height, width = values.shape
    tall = np.maximum.reduce([padded[top : top + height] for top in range(3)])
    return np.maximum.reduce([tall[:, left : left + width] for left in range(3)])
