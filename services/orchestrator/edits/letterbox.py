"""Letterboxing: fitting a picture of any size onto the stages' square canvas, and back.

A picture is scaled by Lanczos so that its longer side is the canvas's side, and centred; its border
pixels are repeated over the rest of the square. On the way back the canvas is cropped to the
picture's area and scaled to its size. A picture of the canvas's own size passes unchanged.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

LANCZOS, BILINEAR = Image.Resampling.LANCZOS, Image.Resampling.BILINEAR


@dataclass(frozen=True, kw_only=True)
class Letterbox:
    """Position of a picture on the canvas.

    Attributes:
        picture: Height and width of the picture, in its own pixels.
        side: Side of the canvas, in pixels.
        size: Height and width of the picture on the canvas.
        corner: Top and left of the picture on the canvas.
    """

    picture: tuple[int, int]
    side: int
    size: tuple[int, int]
    corner: tuple[int, int]

    @property
    def inside(self) -> Bool[np.ndarray, "S S"]:
        """True at pixels of the canvas that the picture covers."""
        (top, left), (height, width) = self.corner, self.size
        covered = np.zeros((self.side, self.side), bool)
        covered[top : top + height, left : left + width] = True
        return covered

    @property
    def shrunk(self) -> "Letterbox":
        """The letterbox of the picture reduced to the canvas's scale, if it is larger than that."""
        return self if max(self.picture) <= self.side else replace(self, picture=self.size)

    def apply(self, picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "S S 3"]:
        """Returns the canvas with the picture on it."""
        fitted = resized(picture, self.size, LANCZOS)
        around = [
            (at, self.side - at - length) for at, length in zip(self.corner, self.size, strict=True)
        ]
        return np.pad(fitted, [*around, (0, 0)], mode="edge")

    def apply_to_mask(self, mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "S S"]:
        """Returns the canvas pixels that contain any masked pixel of the picture."""
        (top, left), (height, width) = self.corner, self.size
        rows = np.stack([mask[span].any(axis=0) for span in _spans(self.picture[0], height)])
        cells = [rows[:, span].any(axis=1) for span in _spans(self.picture[1], width)]
        on_canvas = np.zeros((self.side, self.side), bool)
        on_canvas[top : top + height, left : left + width] = np.stack(cells, axis=1)
        return on_canvas

    def undo(self, canvas: UInt8[np.ndarray, "S S 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the picture cropped from a canvas and scaled to its own size."""
        return resized(self.cut(canvas), self.picture, LANCZOS)

    def undo_weights(self, weights: Float[np.ndarray, "S S"]) -> UInt8[np.ndarray, "h w"]:
        """Returns canvas weights, 0 to 1, as weights of the picture, 0 to 255."""
        levels = np.round(255 * self.cut(weights)).astype(np.uint8)
        return resized(levels, self.picture, BILINEAR)

    def cut(self, canvas: np.ndarray) -> np.ndarray:
        """Returns the picture's area of a canvas, at the canvas's scale."""
        (top, left), (height, width) = self.corner, self.size
        return canvas[top : top + height, left : left + width]


def letterbox_of(height: int, width: int, side: int) -> Letterbox:
    """Returns the letterbox of a picture on a canvas of `side` x `side` pixels."""
    longer = max(height, width)
    tall, wide = (max(1, round(length * side / longer)) for length in (height, width))
    return Letterbox(
        picture=(height, width),
        side=side,
        size=(tall, wide),
        corner=((side - tall) // 2, (side - wide) // 2),
    )


def _spans(pixels: int, count: int) -> list[slice]:
    """Returns the pixels that each of `count` equal parts touches."""
    return [
        slice(part * pixels // count, -(-(part + 1) * pixels // count)) for part in range(count)
    ]


def resized(pixels: np.ndarray, size: tuple[int, int], resampling: Image.Resampling) -> np.ndarray:
    """Returns a picture or a channel in another height and width."""
    if pixels.shape[:2] == size:
        return pixels
    height, width = size
    return np.asarray(Image.fromarray(pixels).resize((width, height), resampling))
