"""Windows of outpainting: squares that extend a picture, each overlapping its known pixels."""

from dataclasses import dataclass

from muse.orchestrator.v1.orchestrator_pb2 import Outpaint

from services.runtime.wire.errors import invalid_field

MAX_WINDOWS = 64


@dataclass(frozen=True, kw_only=True)
class Window:
    """A square of the extended picture, at least half of it known before it is painted.

    Attributes:
        top: First row in the extended picture.
        left: First column in the extended picture.
        side: Number of rows and of columns.
        border: Line of known pixels next to the new ones: a row of the extended picture for axis
            0, a column for axis 1.
        axis: Axis along which the window extends the picture: 0 vertical, 1 horizontal.
    """

    top: int
    left: int
    side: int
    border: int
    axis: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the window in the extended picture."""
        return (
            slice(self.top, self.top + self.side),
            slice(self.left, self.left + self.side),
        )


def windows(height: int, width: int, outpaint: Outpaint) -> list[Window]:
    """Returns the windows in painting order: right, left, bottom, top.

    The side of a window is the shorter side of the picture. A window extends the picture by at
    most half its side, so at least half of it is known; neighbouring windows overlap by half, too.

    Raises:
        RequestError: INVALID_ARGUMENT: the result needs more than MAX_WINDOWS windows.
    """
    side = min(height, width)
    # Known rows and columns, first and one past the last, by axis.
    known = [
        [outpaint.top_px, outpaint.top_px + height],
        [outpaint.left_px, outpaint.left_px + width],
    ]
    plan: list[Window] = []
    for border, axis, end in (
        ("right_px", 1, 1),
        ("left_px", 1, 0),
        ("bottom_px", 0, 1),
        ("top_px", 0, 0),
    ):
        added = getattr(outpaint, border)
        strips = -(-2 * added // side)
        if strips > MAX_WINDOWS:
            raise _too_many(border, side, added)
        for strip in range(strips):
            grown = added * (strip + 1) // strips - added * strip // strips
            near = known[axis][end] - end  # the line of known pixels that is continued
            known[axis][end] += grown if end else -grown
            first = known[axis][1] - side if end else known[axis][0]
            across = known[1 - axis]
            for start in _starts(across[0], across[1], side):
                top, left = (first, start) if axis == 0 else (start, first)
                plan.append(Window(top=top, left=left, side=side, border=near, axis=axis))
        if len(plan) > MAX_WINDOWS:
            raise _too_many(border, side, added)
    return plan


def _starts(first: int, last: int, side: int) -> list[int]:
    """Returns the starts of windows that cover a line and overlap by at least half a side."""
    room = last - first - side
    count = -(-2 * room // side)
    return [first + room * at // max(count, 1) for at in range(count + 1)]


def _too_many(border: str, side: int, got: int) -> Exception:
    return invalid_field(
        f"outpaint.{border}",
        expected=f"a result of at most {MAX_WINDOWS} windows of {side} pixels, half overlapping",
        got=f"{got} pixels",
        advice="extend it by less, or a larger picture",
    )
