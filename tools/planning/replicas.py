"""A replica in virtual time: the policies of the servers' scheduler and batcher, without work.

A replica returns the time of its next event. It passes steps between which no call joins or
leaves in one go, so that a decode is a handful of events whatever its steps.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from services.runtime.scheduling.dispatch import steps_to_take
from tools.planning.step_times import BatchTimes, SlotTimes


@dataclass(eq=False, slots=True)
class Call:
    """A request's call of one stage.

    Attributes:
        request: Whose, an index.
        amount: Steps, or rows of a batch.
        guided: 1 if both branches are computed, else 0.
        arrival_s: When it came.
        left: Steps left.
        abandoned: Whether its caller has gone.
    """

    request: int
    amount: int
    guided: int
    arrival_s: float
    left: int = 0
    abandoned: bool = False


class SlotReplica:
    """Requests that join and leave between steps, as in `services.runtime.scheduling.scheduler`."""

    def __init__(self, times: SlotTimes) -> None:
        """Starts with free slots."""
        self._times, self._slots = times, times.together
        self._waiting: deque[Call] = deque()
        self._running_calls: list[Call] = []
        self._running = False
        self._begun_s = self._first_s = self._dispatch_s = 0.0
        self._steps = self._dispatches = 0
        self.busy_s = self.filled_s = 0.0  # time at work, and that times the share of slots taken

    def arrive(self, now_s: float, call: Call) -> float | None:
        """Takes a call; returns when to be woken instead, if that changes."""
        self._waiting.append(call)
        if not self._running:
            return now_s
        joins = len(self._running_calls) < self._slots
        return self._look_up(now_s) if joins or self._steps > 1 else None

    def abandon(self, now_s: float, call: Call) -> float | None:
        """Forgets a call before the next dispatch; returns when to be woken instead."""
        call.abandoned = True
        return self._look_up(now_s) if self._running else None

    def wake(self, now_s: float) -> tuple[list[Call], float | None]:
        """Ends what is done and begins what can be.

        Returns:
            Calls that ended, and when to be woken next; None if there is nothing to do.
        """
        ended = self._pass(now_s) if self._running else []
        running_calls = [call for call in self._running_calls if not call.abandoned]
        admitted = 0
        while self._waiting and len(running_calls) < self._slots:
            call = self._waiting.popleft()
            if not call.abandoned:
                call.left = call.amount
                running_calls.append(call)
                admitted += 1
        self._running_calls, self._running = running_calls, bool(running_calls)
        return ended, self._dispatch(now_s, admitted) if running_calls else None

    def lose(self) -> list[Call]:
        """Forgets everything; returns whose calls it had."""
        calls = [call for call in (*self._running_calls, *self._waiting) if not call.abandoned]
        self._running_calls, self._running = [], False
        self._waiting.clear()
        return calls

    def _dispatch(self, now_s: float, admitted: int) -> float:
        times, running_calls = self._times, self._running_calls
        step_s = times.step_s[len(running_calls)][sum(call.guided for call in running_calls)]
        left = [call.left for call in running_calls]
        self._steps = steps_to_take(
            left,
            stream=False,
            waiting=bool(self._waiting),
            step_s=step_s + times.dispatch_s,
        )
        self._dispatches = min(left) // self._steps
        self._dispatch_s = times.dispatch_s + self._steps * step_s
        self._begun_s, self._first_s = now_s, now_s + admitted * times.admit_s
        return self._first_s + self._dispatches * self._dispatch_s

    def _look_up(self, now_s: float) -> float | None:
        """Has the replica look up after the dispatch under way."""
        passed = max(1, math.ceil((now_s - self._first_s) / self._dispatch_s - 1e-9))
        if passed >= self._dispatches:
            return None
        self._dispatches = passed
        return self._first_s + passed * self._dispatch_s

    def _pass(self, now_s: float) -> list[Call]:
        taken = self._steps * self._dispatches
        self.busy_s += now_s - self._begun_s
        self.filled_s += (now_s - self._begun_s) * len(self._running_calls) / self._slots
        for call in self._running_calls:
            call.left -= taken
        ended = [call for call in self._running_calls if call.left <= 0]
        self._running_calls = [call for call in self._running_calls if call.left > 0]
        return [call for call in ended if not call.abandoned]


class BatchReplica:
    """Whole requests in batches that end together, as in `services.runtime.scheduling.batching`."""

    def __init__(self, times: BatchTimes) -> None:
        """Starts idle."""
        self._times = times
        self._waiting: deque[Call] = deque()
        self._batch: list[Call] = []
        self._begun_s = self._ends_s = 0.0
        self.busy_s = self.filled_s = 0.0

    def arrive(self, now_s: float, call: Call) -> float | None:
        """Takes a call; returns when to be woken instead, if that changes."""
        self._waiting.append(call)
        if self._batch:
            return None
        if len(self._waiting) >= self._times.together:
            return now_s
        return now_s + self._times.max_wait_s if len(self._waiting) == 1 else None

    def abandon(self, now_s: float, call: Call) -> float | None:
        """Forgets a call unless its batch runs, which goes on."""
        del now_s
        call.abandoned = True
        return None

    def wake(self, now_s: float) -> tuple[list[Call], float | None]:
        """Ends what is done and begins what can be.

        Returns:
            Calls that ended, and when to be woken next; None if there is nothing to do.
        """
        ended: Sequence[Call] = self._batch
        if self._batch:
            self.busy_s += now_s - self._begun_s
            self.filled_s += (now_s - self._begun_s) * len(self._batch) / self._times.together
            self._batch = []
        answered = [call for call in ended if not call.abandoned]
        while self._waiting and self._waiting[0].abandoned:
            self._waiting.popleft()
        if not self._waiting:
            return answered, None
        starts_s = self._waiting[0].arrival_s + self._times.max_wait_s
        if len(self._waiting) < self._times.together and starts_s > now_s:
            return answered, starts_s
        size = min(self._times.together, len(self._waiting))
        taken = [self._waiting.popleft() for _ in range(size)]
        self._batch = [call for call in taken if not call.abandoned]
        self._begun_s = now_s
        return answered, now_s + self._times.seconds(sum(call.amount for call in self._batch))

    def lose(self) -> list[Call]:
        """Forgets everything; returns whose calls it had."""
        calls = [call for call in (*self._batch, *self._waiting) if not call.abandoned]
        self._batch = []
        self._waiting.clear()
        return calls


Replica = SlotReplica | BatchReplica


def new_replica(times: SlotTimes | BatchTimes) -> Replica:
    """Returns a replica with nothing to do."""
    return SlotReplica(times) if isinstance(times, SlotTimes) else BatchReplica(times)
