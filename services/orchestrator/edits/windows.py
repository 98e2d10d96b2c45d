"""The windows by which a picture is extended: squares that each overlap what is there already."""

from dataclasses import dataclass

from muse.orchestrator.v1.orchestrator_pb2 import Outpaint

from services.runtime.wire.errors import invalid_field

MOST_WINDOWS = 64


@dataclass(frozen=True, kw_only=True)
class Window:
    """A square of the extended picture, at least half of which is there before it is painted.

    Attributes:
        top: Its first row.
        left: Its first column.
        side: Rows and columns.
        border: Where the known pixels next to the new ones lie: row of the extended picture if it
            grows up or down, column if it grows to a side.
        axis: Along which it grows: 0 up or down, 1 to a side.
    """

    top: int
    left: int
    side: int
    border: int
    axis: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the extended picture."""
        return (
            slice(self.top, self.top + self.side),
            slice(self.left, self.left + self.side),
        )


def windows(height: int, width: int, outpaint: Outpaint) -> list[Window]:
    """Returns the windows in the order they are painted: right, left, bottom, top.

    A window's side is the picture's shorter one. It grows the picture by at most half of that, so
    the other half tells what to go on with; beside one another, windows overlap by half as well.

    Args:
        height: Of the picture as it is.
        width: Of the picture as it is.
        outpaint: How far to extend it.

    Raises:
        RequestError: INVALID_ARGUMENT: there are too many.
    """
    side = min(height, width)
    # Rows and columns that are there, first and one past the last, by axis.
    there = [
        [outpaint.top_px, outpaint.top_px + height],
        [outpaint.left_px, outpaint.left_px + width],
    ]
    found: list[Window] = []
    for border, axis, end in (
        ("right_px", 1, 1),
        ("left_px", 1, 0),
        ("bottom_px", 0, 1),
        ("top_px", 0, 0),
    ):
        added = getattr(outpaint, border)
        strips = -(-2 * added // side)
        if strips > MOST_WINDOWS:
            raise _too_many(border, side, added)
        for strip in range(strips):
            grown = added * (strip + 1) // strips - added * strip // strips
            near = there[axis][end] - end  # the line of known pixels that is continued
            there[axis][end] += grown if end else -grown
            first = there[axis][1] - side if end else there[axis][0]
            across = there[1 - axis]
            for start in _starts(across[0], across[1], side):
                top, left = (first, start) if axis == 0 else (start, first)
                found.append(Window(top=top, left=left, side=side, border=near, axis=axis))
        if len(found) > MOST_WINDOWS:
            raise _too_many(border, side, added)
    return found


def _starts(first: int, last: int, side: int) -> list[int]:
    """Returns where windows begin that cover a line, each overlapping the last by half or more."""
    room = last - first - side
    count = -(-2 * room // side)
    return [first + room * at // max(count, 1) for at in range(count + 1)]


def _too_many(border: str, side: int, got: int) -> Exception:
    return invalid_field(
        f"outpaint.{border}",
        expected=f"a result of at most {MOST_WINDOWS} windows of {side} pixels, half overlapping",
        got=f"{got} pixels",
        advice="extend it by less, or a larger picture",
    )
