"""Masks: the tokens that they leave unknown, and the seam between new and old pixels."""

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageFilter

from services.orchestrator.edits.letterbox import Letterbox


def touched_cells(pixels: Bool[np.ndarray, "S S"], grid: int) -> Bool[np.ndarray, "g g"]:
    """Returns the cells of the canvas, `grid` along a side, that contain any marked pixel."""
    cell = pixels.shape[0] // grid
    return np.asarray(pixels.reshape(grid, cell, grid, cell).any(axis=(1, 3)))


def unknown_cells(
    masked: Bool[np.ndarray, "S S"], inside: Bool[np.ndarray, "S S"], grid: int
) -> Bool[np.ndarray, "g g"]:
    """Returns the tokens to decode: those with a masked pixel, and those outside the picture."""
    return touched_cells(masked, grid) | ~touched_cells(inside, grid)


def seam_weights(masked: Bool[np.ndarray, "S S"], feather_px: int) -> Float[np.ndarray, "S S"]:
    """Returns the weight of the new pixels: 0 outside the mask, rising to 1 inside it.

    The edge of the canvas is no seam. Where the mask is narrower than twice the feather, the
    weight still reaches 1 in its middle.

    Args:
        masked: True at pixels to repaint.
        feather_px: Pixels inside the mask over which the weight rises, 0 to 254.
    """
    eroded = Image.fromarray(masked.astype(np.uint8))
    depth = np.asarray(eroded)
    for _ in range(feather_px):
        eroded = eroded.filter(ImageFilter.MinFilter(3))
        depth = depth + np.asarray(eroded)
    highest = Image.fromarray(depth)
    for _ in range(feather_px):
        highest = highest.filter(ImageFilter.MaxFilter(3))
    return depth.astype(np.float32) / np.maximum(np.asarray(highest), 1)


def composite(
    old: UInt8[np.ndarray, "h w 3"],
    new: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"],
    weights: UInt8[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w 3"]:
    """Blends two pictures inside a mask; pixels outside the mask stay equal to the old picture.

    `weights` are those of the new picture, 0 to 255.
    """
    weights_image = Image.fromarray(np.where(mask, weights, 0).astype(np.uint8))
    return np.asarray(Image.composite(Image.fromarray(new), Image.fromarray(old), weights_image))


def seamless(
    old: UInt8[np.ndarray, "h w 3"],
    canvas: UInt8[np.ndarray, "S S 3"],
    mask: Bool[np.ndarray, "h w"],
    letterbox: Letterbox,
    feather_px: int,
) -> UInt8[np.ndarray, "h w 3"]:
    """Blends a decoded canvas into a picture's masked pixels, over `feather_px` canvas pixels."""
    masked = letterbox.apply_to_mask(mask) | ~letterbox.inside
    weights = letterbox.undo_weights(seam_weights(masked, feather_px))
    return composite(old, letterbox.undo(canvas), mask, weights)
