"""Replicas in virtual time: the servers' own policies, on devices that only take time.

`SlotReplica` asks `SlotPolicy` and `BatchReplica` asks `BatchQueue`, as `SlotScheduler` and
`Batcher` do. A replica returns the time of its next event. Dispatches that are alike are one event,
so that a decode is a handful of events whatever its steps.
"""

import math
import sys
from dataclasses import dataclass

from services.runtime.scheduling.batch_queue import BatchQueue
from services.runtime.scheduling.slot_policy import SlotPolicy
from services.runtime.scheduling.slots import Event, InSlots, RequestState
from tools.planning.step_times import BatchTimes, SlotTimes

UNBOUNDED = sys.maxsize  # requests that may wait: refusals are not simulated


@dataclass(eq=False, slots=True)
class Call:
    """A request's call of one stage; a `DecodeRequest`.

    Attributes:
        request: Index of the request.
        steps_left: Steps of base and superres.
        rows: Rows of a step (2 with guidance, else 1), or rows of a batch.
        cancelled: Whether its caller is gone.
    """

    request: int
    steps_left: int
    rows: int
    cancelled: bool = False


class SlotReplica:
    """A replica of base or superres, whose requests join and leave between steps.

    Attributes:
        busy_s: Seconds that the device worked.
        filled_s: The same, times the share of slots that were taken.
    """

    def __init__(self, times: SlotTimes) -> None:
        """Starts with free slots."""
        self._times = times
        self._policy: SlotPolicy[Call, None] = SlotPolicy(times.together, UNBOUNDED)
        # The dispatches under way; the first one is longer by the time to admit requests.
        self._start_s = self._first_s = self._dispatch_s = 0.0
        self._steps = self._dispatches = 0
        self._turn: InSlots[Call, None] = {}
        self._cancelled = False  # whether some request is
        self.busy_s = self.filled_s = 0.0

    def arrive(self, now_s: float, call: Call) -> float | None:
        """Takes a call; returns the time to wake up instead, if that changes."""
        self._policy.submit(RequestState(call, _ignore, False, now_s, call.steps_left))
        return self._interrupt(now_s) if self._dispatches else now_s

    def cancel(self, now_s: float, call: Call) -> float | None:
        """Cancels a call; returns the time to wake up instead, if that changes."""
        for state in (*self._policy.running.values(), *self._policy.queue.items()):
            if state.request is call:
                self._policy.cancel(state)
        self._cancelled = True
        return self._interrupt(now_s) if self._dispatches else None

    def wake(self, now_s: float) -> tuple[list[Call], float | None]:
        """Ends the dispatches under way, and begins the next ones.

        Returns:
            Calls that ended, and the time to wake up next; None if there is nothing to do.
        """
        policy = self._policy
        ended = self._finish(now_s) if self._dispatches else []
        if self._cancelled:
            self._cancelled = False
            for slot in policy.cancelled_slots():
                policy.free(slot)
        admitted = 0
        if policy.queue:
            for slot in policy.free_slots():
                admitted += policy.start_next(slot, now_s) is not None
        self._dispatches = 0
        return ended, self._dispatch(now_s, admitted) if policy.running else None

    def fail(self) -> list[Call]:
        """Forgets all calls and returns them."""
        states = (*self._policy.running.values(), *self._policy.queue.items())
        self._policy = SlotPolicy(self._times.together, UNBOUNDED)
        self._dispatches = 0
        return [state.request for state in states if not state.cancelled]

    def _dispatch(self, now_s: float, admitted: int) -> float:
        """Begins as many dispatches as are alike while no call comes or goes."""
        policy, times = self._policy, self._times
        self._turn = turn = policy.turn()
        running, steps = len(policy.running), policy.next_steps(turn)
        step_s = times.step_s[running][policy.rows - running]
        self._steps, self._dispatch_s = steps, times.dispatch_s + steps * step_s
        self._start_s, self._first_s = now_s, admitted * times.admit_s + self._dispatch_s
        self._dispatches = min([state.steps_left for state in policy.running.values()]) // steps
        if self._dispatches > 1 and not (
            # The measured time of a step moves from the first dispatch's to that of the others.
            policy.steps_if(turn, self._dispatch_s / steps) == steps
            and (not admitted or policy.steps_if(turn, self._first_s / steps) == steps)
        ):
            self._dispatches = 1
        return self._end_s()

    def _end_s(self) -> float:
        return self._start_s + self._first_s + (self._dispatches - 1) * self._dispatch_s

    def _interrupt(self, now_s: float) -> float | None:
        """Makes the dispatch under way the last one before the policy decides again."""
        under_way = math.ceil((now_s - self._start_s - self._first_s) / self._dispatch_s - 1e-9) + 1
        if max(1, under_way) >= self._dispatches:
            return None
        self._dispatches = max(1, under_way)
        return self._end_s()

    def _finish(self, now_s: float) -> list[Call]:
        policy, taken_s = self._policy, now_s - self._start_s
        self.busy_s += taken_s
        self.filled_s += taken_s * len(policy.running) / self._times.together
        steps, others = self._steps, self._dispatches
        ended: list[int] = []
        if self._first_s != self._dispatch_s:
            ended = policy.finish(self._turn, steps, self._first_s / steps)
            others -= 1
        if others:
            ended = policy.finish(self._turn, steps, self._dispatch_s / steps, others)
        states = [policy.free(slot) for slot in ended]
        return [state.request for state in states if not state.cancelled]


class BatchReplica:
    """A replica whose requests are computed in batches that end together.

    Attributes:
        busy_s: Seconds that the device worked.
        filled_s: The same, times the share of a full batch that was taken.
    """

    def __init__(self, times: BatchTimes) -> None:
        """Starts idle."""
        self._times = times
        self._queue: BatchQueue[Call] = BatchQueue(times.together, times.max_wait_s)
        self._batch: list[Call] = []
        self._start_s, self._wake_s = 0.0, math.inf
        self.busy_s = self.filled_s = 0.0

    def arrive(self, now_s: float, call: Call) -> float | None:
        """Takes a call; returns the time to wake up instead, if that changes."""
        self._queue.push(call, now_s)
        return None if self._batch else self._plan(now_s)

    def cancel(self, now_s: float, call: Call) -> float | None:
        """Cancels a call, unless its batch runs; returns the time to wake up instead."""
        call.cancelled = True
        self._queue.remove(call)
        return None if self._batch else self._plan(now_s)

    def wake(self, now_s: float) -> tuple[list[Call], float | None]:
        """Ends the batch under way, and begins the next one.

        Returns:
            Calls that ended, and the time to wake up next; None if there is nothing to do.
        """
        ended = [call for call in self._batch if not call.cancelled]
        if self._batch:
            self.busy_s += now_s - self._start_s
            self.filled_s += (now_s - self._start_s) * len(self._batch) / self._times.together
            self._batch = []
        self._wake_s = math.inf
        next_s = self._plan(now_s)
        if next_s != now_s:
            return ended, next_s
        self._batch, self._start_s = self._queue.pop_batch(), now_s
        return ended, now_s + self._times.seconds(sum([call.rows for call in self._batch]))

    def _plan(self, now_s: float) -> float | None:
        """Returns the time when the next batch starts; None if it is planned already, or never."""
        planned_s, self._wake_s = self._wake_s, max(now_s, self._queue.start_s)
        return None if self._wake_s in (planned_s, math.inf) else self._wake_s

    def fail(self) -> list[Call]:
        """Forgets all calls and returns them."""
        calls = list(self._batch)
        while batch := self._queue.pop_batch():
            calls += batch
        self._batch, self._wake_s = [], math.inf
        return [call for call in calls if not call.cancelled]


Replica = SlotReplica | BatchReplica


def new_replica(times: SlotTimes | BatchTimes) -> Replica:
    """Returns a replica with nothing to do."""
    return SlotReplica(times) if isinstance(times, SlotTimes) else BatchReplica(times)


def _ignore(_: Event[None]) -> None:
    """Receives the events of a call, of which the policy sends none."""
