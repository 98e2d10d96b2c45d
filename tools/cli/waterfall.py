"""Timeline of an image as rows of segments, for the terminal and the HTML page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from muse.common.v1.stage_pb2 import StageCall
from muse_client import GeneratedImage

KINDS = ("queue", "compute", "transfer", "overhead")
OVERHEAD = "overhead"


@dataclass(frozen=True)
class Segment:
    """An interval of one of KINDS, in seconds from the request; another call ran if concurrent."""

    kind: str
    start_s: float
    end_s: float
    concurrent: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line: a stage, or the time in none.

    Attributes:
        name: The stage, or OVERHEAD.
        segments: In order.
        seconds: In all, by kind; concurrent calls are not in it.
        device_s: Its share of the device.
    """

    name: str
    segments: tuple[Segment, ...]
    seconds: dict[str, float]
    device_s: float = 0.0

    @property
    def total_s(self) -> float:
        """All of its seconds."""
        return sum(self.seconds.values())


def waterfall(picture: GeneratedImage) -> list[Row]:
    """Returns one row for each stage that was called, in pipeline order, and one for overhead.

    Their seconds add up to the picture's `wall_s`.

    Raises:
        ValueError: the server is of a version that does not report its calls.
    """
    if not picture.calls:
        raise ValueError(
            "trace: expected a server that reports its calls, got one of an earlier version"
        )
    rows = []
    for timing in picture.timings:
        calls = [call for call in picture.calls if call.timing.stage == timing.stage]
        segments = tuple(segment for call in calls for segment in _segments(call))
        seconds = {kind: getattr(timing, f"{kind}_s") for kind in ("queue", "compute", "transfer")}
        rows.append(
            Row(name=timing.stage, segments=segments, seconds=seconds, device_s=timing.device_s)
        )
    gaps = tuple(_gaps(picture.calls, picture.wall_s))
    return [*rows, Row(name=OVERHEAD, segments=gaps, seconds={OVERHEAD: picture.overhead_s})]


def total(rows: Sequence[Row]) -> Row:
    """Returns a row with the sums of others, without segments."""
    seconds = {kind: sum(row.seconds.get(kind, 0.0) for row in rows) for kind in KINDS}
    return Row(name="all", segments=(), seconds=seconds, device_s=sum(row.device_s for row in rows))


def _segments(call: StageCall) -> Iterator[Segment]:
    """Yields the segments of a call.

    The split of transfer into request and response is unknown, since the clocks of two machines are
    not compared; half is drawn on each side.
    """
    timing, at_s = call.timing, call.start_s
    for kind, seconds in (
        ("transfer", timing.transfer_s / 2),
        ("queue", timing.queue_s),
        ("compute", timing.compute_s),
        ("transfer", timing.transfer_s / 2),
    ):
        if seconds > 0:
            yield Segment(kind, at_s, at_s + seconds, call.concurrent)
        at_s += seconds


def _gaps(calls: Sequence[StageCall], wall_s: float) -> Iterator[Segment]:
    free_s = 0.0
    for call in calls:
        if call.concurrent:
            continue
        if call.start_s > free_s:
            yield Segment(OVERHEAD, free_s, call.start_s)
        timing = call.timing
        free_s = call.start_s + timing.queue_s + timing.compute_s + timing.transfer_s
    if wall_s > free_s:
        yield Segment(OVERHEAD, free_s, wall_s)


def cells(row: Row, wall_s: float, width: int) -> list[str]:
    """Returns the kind of segment that fills most of each cell of a row, or "" for an empty cell.

    Any segment wins over empty time, so that short segments stay visible; segments that the image
    waited for win over concurrent ones. All `width` cells cover `wall_s` seconds.
    """
    shown = []
    for index in range(width):
        begin_s, end_s = wall_s * index / width, wall_s * (index + 1) / width
        filled: dict[tuple[bool, str], float] = {}
        for segment in row.segments:
            inside_s = min(end_s, segment.end_s) - max(begin_s, segment.start_s)
            if inside_s > 0:
                key = (not segment.concurrent, segment.kind)
                filled[key] = filled.get(key, 0.0) + inside_s
        best = max(filled, key=lambda key: (key[0], filled[key]), default=(True, ""))
        shown.append(best[1])
    return shown
