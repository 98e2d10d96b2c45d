"""When a request will be done, known at its arrival: its steps are, and so are those ahead of it.

Source: DESIGN 5: "steps are known, so the finish time is known".
"""

from collections import deque
from collections.abc import Iterable

SMOOTHING = 0.2  # weight of the newest dispatch in a running mean


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
    steps: int, seated: Iterable[int], waiting: Iterable[int], *, slots: int, times: StepTimes
) -> float | None:
    """Returns when a request that comes now is done, if nobody leaves and nobody goes before it.

    Args:
        steps: It has to take.
        seated: Steps left of each request in a slot.
        waiting: Steps of each request that waits, in the order in which they are seated.
        slots: Requests that are computed at a time.
        times: What steps take.

    Returns:
        Seconds from now, or None if no step was measured yet.
    """
    if times.seconds(1) is None:
        return None
    running = [left for left in seated if left > 0]
    ahead = deque([*waiting, steps])
    elapsed_s = 0.0
    while True:
        while ahead and len(running) < slots:
            running.append(ahead.popleft())
        taken = min(running)
        elapsed_s += taken * (times.seconds(len(running)) or 0.0)
        # Last in line, the newcomer is the last of those that run once nobody is ahead of it.
        if not ahead and running[-1] == taken:
            return elapsed_s
        running = [left - taken for left in running if left > taken]
