"""When a request will be done, known at its arrival: its steps are, and so are those ahead of it.

Source: DESIGN 5: "steps are known, so the finish time is known".
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

SMOOTHING = 0.2  # weight of the newest dispatch in a running mean


@dataclass(frozen=True)
class Work:
    """What a request has to do.

    Attributes:
        steps: Steps left.
        rows: Rows that one of its steps computes: 1, or 2 with guidance.
    """

    steps: int
    rows: int


class StepTimes:
    """Seconds a step takes of late, by how many rows take part in it."""

    def __init__(self) -> None:
        """Knows nothing yet."""
        self._seconds: dict[int, float] = {}

    def measure(self, rows: int, seconds: float) -> None:
        """Takes note of what a step of so many rows just took."""
        usual = self._seconds.get(rows, seconds)
        self._seconds[rows] = usual + SMOOTHING * (seconds - usual)

    def seconds(self, rows: int) -> float | None:
        """Returns what a step of so many rows takes; None if nothing was measured yet.

        A number of rows that was never measured takes as long as the next larger one that was;
        beyond the largest, a step takes longer in proportion.
        """
        if rows in self._seconds or not self._seconds:
            return self._seconds.get(rows)
        larger = [measured for measured in self._seconds if measured > rows]
        if larger:
            return self._seconds[min(larger)]
        largest = max(self._seconds)
        return self._seconds[largest] * rows / largest


def seconds_to_finish(
    own: Work,
    *,
    seated: Sequence[Work] = (),
    ahead: Sequence[Work] = (),
    behind: Sequence[Work] = (),
    slots: int,
    times: StepTimes,
) -> float | None:
    """Returns when a request that comes now is done, if nobody leaves.

    One that has to wait comes at a busy hour: whoever ends is taken to be followed by another, so
    that steps never compute fewer rows than now. Else nobody else is taken to come.

    Args:
        own: What it has to do.
        seated: Requests in a slot.
        ahead: Requests that are seated before it, in order.
        behind: Requests that wait and are seated after it, in order.
        slots: Requests that are computed at a time.
        times: What steps take.

    Returns:
        Seconds from now, or None if no step was measured yet.
    """
    if times.seconds(1) is None:
        return None
    line = deque(enumerate([*seated, *ahead, own, *behind]))
    newcomer = len(seated) + len(ahead)
    busy = [*seated, *ahead][:slots]
    least_rows = sum(work.rows for work in busy) if len(busy) == slots else 0
    running: dict[int, Work] = {}
    elapsed_s = 0.0
    while newcomer not in running or running[newcomer].steps > 0:
        running = {index: work for index, work in running.items() if work.steps > 0}
        while line and len(running) < slots:
            index, work = line.popleft()
            running[index] = work
        taken = min(work.steps for work in running.values())
        rows = max(least_rows, sum(work.rows for work in running.values() if work.steps > 0))
        elapsed_s += taken * (times.seconds(rows) or 0.0) if taken else 0.0
        running = {index: Work(work.steps - taken, work.rows) for index, work in running.items()}
    return elapsed_s
