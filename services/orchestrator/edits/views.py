"""Views of edits: they turn a partly decoded square into a preview shaped like the result.

A picture larger than the canvas is shown at the canvas's scale, so that previews stay cheap. Any
other picture is shown at its own size, and its last high-resolution preview equals the result.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from services.orchestrator.edits.letterbox import Letterbox, enlarged, scaled
from services.orchestrator.edits.masks import seamless
from services.orchestrator.previews import GREY


@dataclass(frozen=True, kw_only=True)
class DecodedView:
    """Shows every pixel of the picture as decoded.

    Attributes:
        letterbox: Position of the picture on the canvas.
    """

    letterbox: Letterbox

    def __call__(self, square: UInt8[np.ndarray, "s s 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the picture to show for a decoded square."""
        return self.letterbox.shrunk.undo(enlarged(square, self.letterbox.side))


@dataclass(frozen=True, kw_only=True)
class RepaintedView:
    """Shows the old picture with the decoded pixels blended into its mask.

    Attributes:
        letterbox: Position of the shown picture on the canvas.
        old: Old picture, at the scale to show.
        mask: True at pixels of `old` to repaint.
        feather_px: Canvas pixels, inside the mask, over which the new pixels fade in.
    """

    letterbox: Letterbox
    old: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]
    feather_px: int

    def __call__(self, square: UInt8[np.ndarray, "s s 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the picture to show for a decoded square."""
        canvas = enlarged(square, self.letterbox.side)
        return seamless(self.old, canvas, self.mask, self.letterbox, self.feather_px)


def repainted_view(
    old: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"],
    letterbox: Letterbox,
    feather_px: int,
) -> RepaintedView:
    """Returns the view of a picture that is repainted inside a mask.

    Args:
        old: Old picture.
        mask: True at pixels to repaint.
        letterbox: Position of the picture on the canvas.
        feather_px: Canvas pixels, inside the mask, over which the new pixels fade in.
    """
    shrunk = letterbox.shrunk
    if shrunk is not letterbox:
        old, mask = (
            letterbox.cut(letterbox.apply(old)),
            letterbox.cut(letterbox.apply_to_mask(mask)),
        )
    return RepaintedView(letterbox=shrunk, old=old, mask=mask, feather_px=feather_px)


class Overview:
    """A reduced copy of a growing picture, grey where nothing is painted yet.

    Attributes:
        pixels: Pixels of the reduced copy.
    """

    def __init__(self, height: int, width: int, longest_px: int) -> None:
        """Starts all grey.

        Args:
            height: Height of the full picture, in pixels.
            width: Width of the full picture, in pixels.
            longest_px: Largest side of the reduced copy, in pixels.
        """
        self._scale = min(1.0, longest_px / max(height, width))
        size = (max(1, round(side * self._scale)) for side in (height, width))
        self.pixels = np.full((*size, 3), GREY, np.uint8)

    def put(self, pixels: UInt8[np.ndarray, "h w 3"], at: tuple[slice, slice]) -> None:
        """Writes a part of the picture into the copy.

        Args:
            pixels: Pixels of the part, at any scale.
            at: Rows and columns of the part in the full picture.
        """
        self.pixels = self.with_part(pixels, at)

    def with_part(
        self, pixels: UInt8[np.ndarray, "h w 3"], at: tuple[slice, slice]
    ) -> UInt8[np.ndarray, "H W 3"]:
        """Returns the copy with a part written into it; does not change this object.

        Args:
            pixels: Pixels of the part, at any scale.
            at: Rows and columns of the part in the full picture.
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
    """Shows a growing picture with one window as decoded so far.

    Attributes:
        overview: Reduced copy of the full picture.
        at: Rows and columns of the window in the full picture.
        window: View of the window.
    """

    overview: Overview
    at: tuple[slice, slice]
    window: RepaintedView

    def __call__(self, square: UInt8[np.ndarray, "s s 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the picture to show for a decoded square."""
        return self.overview.with_part(self.window(square), self.at)
