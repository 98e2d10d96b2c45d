"""Views of edits: they turn a partly decoded square into a preview shaped like the result.

A picture larger than the canvas is shown at the canvas's scale, so that previews stay cheap. Any
other picture is shown at its own size, and its last high-resolution preview equals the result.
"""

import numpy as np
from jaxtyping import UInt8

from services.orchestrator.edits.letterbox import BILINEAR, LANCZOS, Letterbox, resized
from services.orchestrator.previews import GREY, Show


def decoded_view(letterbox: Letterbox) -> Show:
    """Returns a view that shows every pixel of a picture as decoded."""
    shrunk = letterbox.shrunk
    size = (shrunk.side, shrunk.side)
    return lambda square: shrunk.undo(resized(square, size, BILINEAR))


class Overview:
    """A reduced copy of a growing picture, grey where nothing is painted yet.

    Attributes:
        pixels: Pixels of the reduced copy.
    """

    def __init__(self, height: int, width: int, longest_px: int) -> None:
        """Starts all grey; the copy's longer side has at most `longest_px` pixels."""
        self._scale = min(1.0, longest_px / max(height, width))
        size = (max(1, round(side * self._scale)) for side in (height, width))
        self.pixels = np.full((*size, 3), GREY, np.uint8)

    def put(self, pixels: UInt8[np.ndarray, "h w 3"], at: tuple[slice, slice]) -> None:
        """Writes a part of the picture, at any scale, to its place in the full picture."""
        self.pixels = self.with_part(pixels, at)

    def with_part(
        self, pixels: UInt8[np.ndarray, "h w 3"], at: tuple[slice, slice]
    ) -> UInt8[np.ndarray, "H W 3"]:
        """Returns the copy with a part written into it; does not change this object."""
        rows, columns = (
            self._span(part, length) for part, length in zip(at, self.pixels.shape[:2], strict=True)
        )
        shown = self.pixels.copy()
        size = (rows.stop - rows.start, columns.stop - columns.start)
        shown[rows, columns] = resized(pixels, size, LANCZOS)
        return shown

    def _span(self, part: slice, length: int) -> slice:
        first = min(round(part.start * self._scale), length - 1)
        return slice(first, min(max(first + 1, round(part.stop * self._scale)), length))

    def window_view(self, at: tuple[slice, slice], view: Show) -> Show:
        """Returns a view that shows the copy with one window as decoded so far."""
        return lambda square: self.with_part(view(square), at)
