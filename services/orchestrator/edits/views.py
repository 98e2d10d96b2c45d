"""What an edit under way looks like: as its result will, at no more than the canvas's scale.

A view takes what is decoded so far, on a square of either resolution. So that many previews of a
large picture cost little, a picture larger than the canvas is shown as small as it lies on it; any
other at its own size, and then the last preview of the high resolution is the result itself.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from services.orchestrator.edits.letterbox import Place, enlarged, scaled
from services.orchestrator.edits.masks import seamless
from services.orchestrator.previews import GREY


@dataclass(frozen=True, kw_only=True)
class DecodedView:
    """Shows the picture as decoded, every pixel of it.

    Attributes:
        place: Of the picture on the canvas.
    """

    place: Place

    def __call__(self, square: UInt8[np.ndarray, "s s 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Returns what is shown of what is decoded."""
        return self.place.shrunk.off(enlarged(square, self.place.side))


@dataclass(frozen=True, kw_only=True)
class RepaintedView:
    """Shows the picture as it was, and what is decoded where it is masked.

    Attributes:
        place: Of what is shown on the canvas.
        old: What is shown, as it was.
        mask: Its pixels to repaint.
        feather_px: Pixels of the canvas, inside the mask, over which the new fades in.
    """

    place: Place
    old: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]
    feather_px: int

    def __call__(self, square: UInt8[np.ndarray, "s s 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Returns what is shown of what is decoded."""
        canvas = enlarged(square, self.place.side)
        return seamless(self.old, canvas, self.mask, self.place, self.feather_px)


def repainted_view(
    old: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"],
    place: Place,
    feather_px: int,
) -> RepaintedView:
    """Returns the view of a picture of which a part is repainted.

    Args:
        old: The picture as it was.
        mask: Its pixels to repaint.
        place: Of the picture on the canvas.
        feather_px: Pixels of the canvas, inside the mask, over which the new fades in.
    """
    shrunk = place.shrunk
    if shrunk is not place:
        old, mask = place.cut(place.onto(old)), place.cut(place.mask_onto(mask))
    return RepaintedView(place=shrunk, old=old, mask=mask, feather_px=feather_px)


class Overview:
    """A growing picture, its longer side at most so long, grey where nothing is yet.

    Attributes:
        pixels: What is there.
    """

    def __init__(self, height: int, width: int, longest_px: int) -> None:
        """Begins with nothing.

        Args:
            height: Of the whole, in pixels.
            width: Of the whole, in pixels.
            longest_px: Longer side of what is shown of it, at most.
        """
        self._scale = min(1.0, longest_px / max(height, width))
        size = (max(1, round(side * self._scale)) for side in (height, width))
        self.pixels = np.full((*size, 3), GREY, np.uint8)

    def put(self, pixels: UInt8[np.ndarray, "h w 3"], at: tuple[slice, slice]) -> None:
        """Puts a part into it.

        Args:
            pixels: The part, at any scale.
            at: Its rows and columns of the whole.
        """
        self.pixels = self.having(pixels, at)

    def having(
        self, pixels: UInt8[np.ndarray, "h w 3"], at: tuple[slice, slice]
    ) -> UInt8[np.ndarray, "H W 3"]:
        """Returns it with a part put into it, and leaves it as it is.

        Args:
            pixels: The part, at any scale.
            at: Its rows and columns of the whole.
        """
        rows, columns = (
            self._span(part, length) for part, length in zip(at, self.pixels.shape[:2], strict=True)
        )
        shown = self.pixels.copy()
        shown[rows, columns] = scaled(pixels, rows.stop - rows.start, columns.stop - columns.start)
        return shown

    def _span(self, part: slice, length: int) -> slice:
        first = min(round(part.start * self._scale), length - 1)
        return slice(first, min(max(first + 1, round(part.stop * self._scale)), length))


@dataclass(frozen=True, kw_only=True)
class WindowView:
    """Shows a window of a growing picture in its place.

    Attributes:
        overview: Of the whole.
        at: The window's rows and columns of the whole.
        window: Shows the window.
    """

    overview: Overview
    at: tuple[slice, slice]
    window: RepaintedView

    def __call__(self, square: UInt8[np.ndarray, "s s 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Returns what is shown of what is decoded."""
        return self.overview.having(self.window(square), self.at)
