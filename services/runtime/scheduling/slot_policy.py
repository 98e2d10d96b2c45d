"""Policy of slots: the requests that are accepted, those that run, and the steps of a dispatch.

Plain data without a thread, a device or a clock. `SlotScheduler` applies it to a device, a
simulation applies it to virtual time.

A device computes the rows of a step one after the other, so whoever holds seven slots of eight
would have seven eighths of it. A dispatch is therefore of the callers that had least of the device
since they came; the slots of others rest. So n callers have an n-th of it each, however many slots
each has, but that a caller with requests in the queue has a quarter of the part of one without.

When all slots are taken, a caller without a slot is given one of a caller that has several: the
request that held it is parked. It waits, and goes on from where it was.

Sources: Yu et al. 2022, "Orca" (iteration-level scheduling); Goyal, Vin and Cheng 1996, "Start-time
fair queuing" (whose turn it is).
"""

from bisect import bisect_right
from collections.abc import Iterable
from itertools import islice
from typing import Generic

from services.runtime.observability.instruments import Load, Reason, count_refusal
from services.runtime.scheduling.dispatch import requests_to_advance, steps_to_take
from services.runtime.scheduling.fair_queue import FairQueue
from services.runtime.scheduling.forecast import PARTS, StepTimes, Work, seconds_to_finish, smoothed
from services.runtime.scheduling.parking import slot_to_spare, slots_held
from services.runtime.scheduling.slots import InSlots, Request, RequestState, State, Stay
from services.runtime.wire.caller import ANONYMOUS, Caller
from services.runtime.wire.errors import RequestError, resource_exhausted

MIN_RETRY_S = 0.01
PLANNED_SHARE = 0.9  # of a caller's deadline; the rest covers the response and slower steps


class SlotPolicy(Generic[Request, State]):
    """Gives waiting requests the slots of a device, in the order of `FairQueue`.

    Attributes:
        running: Requests that hold a slot, by slot, in the order of their next turns.
        rows: Rows that one step of theirs computes.
        queue: Requests that wait for a slot.
    """

    def __init__(self, slots: int, max_queued: int, at_once: int = 1) -> None:
        """Starts with free slots.

        Args:
            slots: Requests that run at a time.
            max_queued: Capacity of the queue.
            at_once: Requests that the device computes in the time of one.
        """
        self.running: dict[int, RequestState[Request, State]] = {}
        self.queue: FairQueue[RequestState[Request, State]] = FairQueue(max_queued)
        self.rows = 0
        self._slots, self._at_once, self._times = slots, at_once, StepTimes()
        self._row_s: float | None = None  # recent seconds of a step of one row
        # Since the device was last idle: whose request came first, and whether others came too.
        self._first_caller, self._shared = "", False
        self._served: dict[Caller, float] = {}  # rows, times steps, by parts, of who holds a slot

    def load(self) -> Load:
        """Returns the current load."""
        waiting = self.queue.items()
        return Load(
            slots=self._slots,
            active=len(self.running),
            capacity=self.queue.capacity,
            queued=len(waiting),
            queued_steps=sum(state.steps_left * state.request.rows for state in waiting),
        )

    def submit(
        self,
        state: RequestState[Request, State],
        caller: Caller = ANONYMOUS,
        within_s: float | None = None,
    ) -> None:
        """Queues a request, or raises RESOURCE_EXHAUSTED; see `SlotScheduler.submit`."""
        steps, rows = state.steps_left, state.request.rows
        if not self.queue.has_room(caller):
            raise _refusal(
                "queue_full",
                f"{len(self.queue)} requests wait already, this caller may add no more",
                self._seconds_to_finish(0, 1, caller),
            )
        # An idle device accepts every request; otherwise one slow step would refuse all others.
        if within_s is not None and (self.queue or self.running):
            finish_s = self._seconds_to_finish(steps, rows, caller)
            planned_s = PLANNED_SHARE * within_s
            if finish_s is not None and finish_s > planned_s:
                raise _refusal(
                    "too_late",
                    f"{steps} steps from now would end in {finish_s:.3g} s; the caller's "
                    f"deadline is in {within_s:.3g} s, of which {planned_s:.3g} s are usable",
                    finish_s - planned_s,
                )
        state.caller = caller
        if not (self.queue or self.running):
            self._first_caller, self._shared = caller.id, False
        self._shared = self._shared or caller.id != self._first_caller
        self.queue.push(state, caller, steps * rows)

    def max_steps_within(
        self, steps: int, rows: int, within_s: float | None, caller: Caller
    ) -> int:
        """Returns the largest number of steps that a new request finishes before its deadline.

        Args:
            steps: Upper bound.
            rows: Rows that one step computes.
            within_s: Seconds until the caller's deadline; None for no deadline.
            caller: Caller of the request.
        """
        if within_s is None or self._seconds_to_finish(steps, rows, caller) is None:
            return steps
        # More steps never end sooner, so the largest number is found by bisection.
        return bisect_right(
            range(1, steps + 1),
            PLANNED_SHARE * within_s,
            key=lambda each: self._seconds_to_finish(each, rows, caller) or 0.0,
        )

    def cancel(self, state: RequestState[Request, State]) -> None:
        """Takes a request out of the queue, or marks it to leave its slot before the next step."""
        state.cancelled = True
        self.queue.remove(state)

    def cancelled_slots(self) -> list[int]:
        """Returns the slots to free before the next dispatch."""
        return [slot for slot, state in self.running.items() if state.cancelled]

    def free_slots(self) -> list[int]:
        """Returns the slots that waiting requests may take."""
        return [slot for slot in range(self._slots) if slot not in self.running]

    def start_next(self, slot: int, now_s: float) -> RequestState[Request, State] | None:
        """Moves the next waiting request into a free slot; returns None if none waits."""
        state = self.queue.pop(slots_held(self.running))
        if state is not None:
            self.running = {slot: state, **self.running}
            self.rows += state.request.rows
            # A caller saves up nothing for the time of its absence.
            self._served.setdefault(state.caller, min(self._served.values(), default=0))
            state.stays.append(Stay(now_s))
        return state

    def slot_to_park(self) -> int | None:
        """Returns the slot whose request is to wait for another caller's; None for no slot.

        That is if all slots are taken, and the next request that waits is of a caller without a
        slot, while another caller has several and is not more urgent.
        """
        if not self.queue or len(self.running) < self._slots:
            return None
        held = slots_held(self.running)
        newcomer = self.queue.next_caller(held)
        if newcomer is None or newcomer.id in held:
            return None
        return slot_to_spare(self.running, newcomer)

    def park(self, slot: int, progress: State, now_s: float) -> None:
        """Makes the request in a slot wait, before all that wait of its priority."""
        state = self.free(slot)
        state.parked, state.stays[-1].end_s = progress, now_s
        if not state.cancelled:
            self.queue.put_back(state, state.caller)

    def turn(self) -> InSlots[Request, State]:
        """Returns the requests of the next dispatch by slot; the others that run rest."""
        least = min(self._served.values())
        running = self.running.items()
        turn = {slot: state for slot, state in running if self._served[state.caller] == least}
        count = requests_to_advance(
            [state.request.rows for state in turn.values()],
            waiting=self._shared and len(self.queue) > 0,
            row_s=self._row_s,
            at_once=self._at_once,
        )
        return dict(islice(turn.items(), count))

    def next_steps(self, turn: InSlots[Request, State]) -> int:
        """Returns the number of steps of a turn's dispatch; at least one request runs."""
        return self.steps_if(turn, self._times.seconds(rows_of(turn.values())))

    def steps_if(self, turn: InSlots[Request, State], step_s: float | None) -> int:
        """Returns what `next_steps` would be if a step took a number of seconds."""
        return steps_to_take(
            [state.steps_left for state in turn.values()],
            stream=any(state.stream for state in turn.values()),
            waiting=len(self.queue) > 0,
            step_s=step_s,
        )

    def finish(
        self, turn: InSlots[Request, State], steps: int, step_s: float, dispatches: int = 1
    ) -> list[int]:
        """Counts completed dispatches.

        Args:
            turn: Requests that took part.
            steps: Steps of each dispatch.
            step_s: Measured seconds of a step. The time to admit new requests counts, since it
                delays every slot's step.
            dispatches: Number of dispatches that were alike.

        Returns:
            The slots whose request has ended, for `free`.
        """
        if steps:
            rows = rows_of(turn.values())
            self._times.measure(rows, step_s, dispatches)
            self._row_s = smoothed(self._row_s or step_s / rows, step_s / rows, dispatches)
        ended = []
        for slot, state in turn.items():
            self.running[slot] = self.running.pop(slot)  # the others are next
            state.steps_left -= steps * dispatches
            parts = 1 if self.queue.holds(state.caller) else PARTS
            self._served[state.caller] += state.request.rows * steps * dispatches / parts
            if not state.steps_left:
                ended.append(slot)
        return ended

    def free(self, slot: int) -> RequestState[Request, State]:
        """Frees a slot; returns the request that held it."""
        state = self.running.pop(slot)
        self.rows -= state.request.rows
        if all(other.caller != state.caller for other in self.running.values()):
            del self._served[state.caller]
        return state

    def _seconds_to_finish(self, steps: int, rows: int, caller: Caller) -> float | None:
        """Returns the seconds until a new request would finish; None if no step was measured."""
        ahead, behind = self.queue.split(caller)
        running, served = dict(self.running), set(slots_held(self.running))
        newcomers: list[RequestState[Request, State]] = []
        others: list[RequestState[Request, State]] = []
        for state in ahead:
            (others if state.caller.id in served else newcomers).append(state)
            served.add(state.caller.id)
        urgent = any(state.caller.priority < caller.priority for state in others)
        if caller.id not in served and not urgent:  # a caller without a slot goes first
            ahead, behind = newcomers, [*others, *behind]
            for place, each in enumerate([*(state.caller for state in newcomers), caller]):
                full = len(running) + place >= self._slots
                if full and (slot := slot_to_spare(running, each)) is not None:
                    behind.insert(0, running.pop(slot))
        return seconds_to_finish(
            Work(steps, rows, caller),
            running=_work(running.values()),
            ahead=_work(ahead),
            behind=_work(behind),
            slots=self._slots,
            times=self._times,
        )


def rows_of(states: Iterable[RequestState[Request, State]]) -> int:
    """Returns the rows that one step of these requests computes."""
    return sum(state.request.rows for state in states)


def _work(states: Iterable[RequestState[Request, State]]) -> list[Work]:
    return [Work(state.steps_left, state.request.rows, state.caller) for state in states]


def _refusal(reason: Reason, sentence: str, retry_after_s: float | None) -> RequestError:
    retry_after_s = max(MIN_RETRY_S, retry_after_s or 0.0)
    return count_refusal(
        reason, resource_exhausted(f"{sentence}: try again later", retry_after_s=retry_after_s)
    )
