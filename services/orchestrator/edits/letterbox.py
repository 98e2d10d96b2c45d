"""Where a picture of any size lies on the square canvas that the stages work on, and back.

The rule: it is scaled, by Lanczos, so that its longer side is the canvas's, and lies in the middle;
its border pixels are repeated over what is left of the square. Back, the canvas is cut to where
the picture lay and scaled to its size. A picture of the canvas's own size passes unchanged.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

LANCZOS, BILINEAR = Image.Resampling.LANCZOS, Image.Resampling.BILINEAR


@dataclass(frozen=True, kw_only=True)
class Place:
    """A picture's place on the canvas.

    Attributes:
        picture: Height and width of the picture, in its own pixels.
        side: Of the canvas, in pixels.
        size: Height and width on the canvas.
        corner: Top and left on the canvas.
    """

    picture: tuple[int, int]
    side: int
    size: tuple[int, int]
    corner: tuple[int, int]

    @property
    def inside(self) -> Bool[np.ndarray, "S S"]:
        """Pixels of the canvas that the picture covers."""
        (top, left), (height, width) = self.corner, self.size
        covered = np.zeros((self.side, self.side), bool)
        covered[top : top + height, left : left + width] = True
        return covered

    @property
    def shrunk(self) -> "Place":
        """The same place of the picture at no more than the canvas's scale."""
        return self if max(self.picture) <= self.side else replace(self, picture=self.size)

    def onto(self, picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "S S 3"]:
        """Returns the canvas with the picture on it."""
        placed = _resized(picture, self.size, LANCZOS)
        around = [
            (at, self.side - at - length) for at, length in zip(self.corner, self.size, strict=True)
        ]
        return np.pad(placed, [*around, (0, 0)], mode="edge")

    def mask_onto(self, mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "S S"]:
        """Returns the pixels of the canvas on which any masked pixel of the picture lies."""
        (top, left), (height, width) = self.corner, self.size
        rows = np.stack([mask[span].any(axis=0) for span in _spans(self.picture[0], height)])
        cells = [rows[:, span].any(axis=1) for span in _spans(self.picture[1], width)]
        placed = np.zeros((self.side, self.side), bool)
        placed[top : top + height, left : left + width] = np.stack(cells, axis=1)
        return placed

    def off(self, canvas: UInt8[np.ndarray, "S S 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the picture that lies on the canvas, at its own size."""
        return _resized(self.cut(canvas), self.picture, LANCZOS)

    def weights_off(self, weights: Float[np.ndarray, "S S"]) -> UInt8[np.ndarray, "h w"]:
        """Returns weights of 0 to 1 on the canvas as 0 to 255 on the picture."""
        levels = np.round(255 * self.cut(weights)).astype(np.uint8)
        return _resized(levels, self.picture, BILINEAR)

    def cut(self, canvas: np.ndarray) -> np.ndarray:
        """Returns what lies on the canvas where the picture does, at the canvas's scale."""
        (top, left), (height, width) = self.corner, self.size
        return canvas[top : top + height, left : left + width]


def place_of(height: int, width: int, side: int) -> Place:
    """Returns the place of a picture on the canvas.

    Args:
        height: Of the picture, in pixels.
        width: Of the picture, in pixels.
        side: Of the canvas, in pixels.
    """
    longer = max(height, width)
    tall, wide = (max(1, round(length * side / longer)) for length in (height, width))
    return Place(
        picture=(height, width),
        side=side,
        size=(tall, wide),
        corner=((side - tall) // 2, (side - wide) // 2),
    )


def enlarged(square: UInt8[np.ndarray, "s s 3"], side: int) -> UInt8[np.ndarray, "S S 3"]:
    """Returns a square picture at the side of a larger one."""
    return _resized(square, (side, side), BILINEAR)


def scaled(
    picture: UInt8[np.ndarray, "h w 3"], height: int, width: int
) -> UInt8[np.ndarray, "H W 3"]:
    """Returns a picture at another size, whatever its aspect."""
    return _resized(picture, (height, width), LANCZOS)


def _spans(pixels: int, count: int) -> list[slice]:
    """Returns for each of `count` equal parts the pixels it touches."""
    return [
        slice(part * pixels // count, -(-(part + 1) * pixels // count)) for part in range(count)
    ]


def _resized(pixels: np.ndarray, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    if pixels.shape[:2] == size:
        return pixels
    height, width = size
    return np.asarray(Image.fromarray(pixels).resize((width, height), how))
