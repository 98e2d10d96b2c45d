"""Forecast of a request's finish time at its arrival, from the steps known to be ahead of it."""

from collections import Counter, deque
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, replace

from services.runtime.wire.caller import ANONYMOUS, Caller

PARTS = 4  # of the device that a caller has if none of its requests waits; else it has one
SMOOTHING = 0.2  # weight of the newest measurement in a running mean
ROUNDING = 1e-9  # share of a request's steps that is no step, but what arithmetic leaves over


def smoothed(mean: float, newest: float, count: int = 1) -> float:
    """Returns a running mean after one more measurement, or several that are equal."""
    return newest + (1 - SMOOTHING) ** count * (mean - newest)


@dataclass(frozen=True)
class Work:
    """Remaining work of a request.

    Attributes:
        steps: Steps left.
        rows: Rows that one step computes: 1, or 2 with guidance.
        caller: Whose request it is.
    """

    steps: float
    rows: int
    caller: Caller = ANONYMOUS


class StepTimes:
    """Recent seconds of a step, by the number of rows in it."""

    def __init__(self) -> None:
        """Starts without measurements."""
        self._seconds: dict[int, float] = {}

    def measure(self, rows: int, seconds: float, count: int = 1) -> None:
        """Adds measurements.

        Args:
            rows: Rows in the step.
            seconds: Seconds it took.
            count: Number of steps that took so long.
        """
        self._seconds[rows] = smoothed(self._seconds.get(rows, seconds), seconds, count)

    def seconds(self, rows: int) -> float | None:
        """Returns the seconds of a step of this many rows; None before the first measurement.

        A number of rows without a measurement takes the time of the next larger one that has a
        measurement; beyond the largest, the time grows in proportion to the rows.
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
    running: Sequence[Work] = (),
    ahead: Sequence[Work] = (),
    behind: Sequence[Work] = (),
    slots: int,
    times: StepTimes,
) -> float | None:
    """Returns the seconds until a request that arrives now is finished, if no caller cancels.

    A request that has to wait arrives at a busy time: the forecast then assumes that every finished
    request is followed by another, so that steps never compute fewer rows than now. Otherwise it
    assumes no further arrivals.

    Args:
        own: Work of the request.
        running: Work of the requests in slots.
        ahead: Work of the waiting requests that start before it, in order.
        behind: Work of the waiting requests that start after it, in order.
        slots: Requests that run at a time.
        times: Measured seconds of steps.

    Returns:
        Seconds from now, or None if no step was measured yet.
    """
    if times.seconds(1) is None:
        return None
    queue = deque(enumerate([*running, *ahead, own, *behind]))
    waiting = Counter(work.caller for _, work in queue)
    own_index = len(running) + len(ahead)
    busy = [*running, *ahead][:slots]
    min_rows = sum(work.rows for work in busy) if len(busy) == slots else 0
    in_slots: dict[int, Work] = {}
    elapsed_s = 0.0
    while own_index not in in_slots or in_slots[own_index].steps > 0:
        in_slots = {index: work for index, work in in_slots.items() if work.steps > 0}
        while queue and len(in_slots) < slots:
            index, work = queue.popleft()
            in_slots[index] = work
            waiting[work.caller] -= 1
        step_s = _seconds_of_steps(in_slots.values(), +waiting, min_rows, times)
        taken_s = min(work.steps * step_s[work.caller] for work in in_slots.values())
        elapsed_s += taken_s
        in_slots = {
            index: replace(work, steps=_steps_left(work.steps, taken_s, step_s[work.caller]))
            for index, work in in_slots.items()
        }
    return elapsed_s


def _steps_left(steps: float, taken_s: float, step_s: float) -> float:
    left = steps - taken_s / step_s if step_s else 0.0
    return left if left > ROUNDING * steps else 0.0


def _seconds_of_steps(
    works: Collection[Work], waiting: Container[Caller], min_rows: int, times: StepTimes
) -> Mapping[Caller, float]:
    """Returns the seconds between two steps of each caller's requests.

    The callers have parts of the device as `SlotPolicy.turn` gives them.
    """
    rows: Counter[Caller] = Counter()
    for work in works:
        rows[work.caller] += work.rows if work.steps > 0 else 0
    computed = rows.total() or 1
    all_s = times.seconds(max(min_rows, computed)) or 0.0
    parts = {caller: 1 if caller in waiting else PARTS for caller, count in rows.items() if count}
    total = sum(parts.values())
    return {
        caller: total / parts.get(caller, 1) * count / computed * all_s
        for caller, count in rows.items()
    }
