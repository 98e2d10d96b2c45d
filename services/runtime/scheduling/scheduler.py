"""Iteration-level scheduler: requests join and leave the slots of a device between its steps.

Plain Python over a protocol, without threads or a model: `services.runtime.scheduling.inflight`
runs it on the device thread, tests and benchmarks run it on simulated devices and clocks.

Source: Yu et al. 2022, "Orca" (iteration-level scheduling).
"""

import logging
import time
import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Generic

from opentelemetry.trace import SpanContext

from services.runtime.observability.instruments import (
    DEVICE,
    STEPS,
    WAITS,
    Load,
    Reason,
    count_refusal,
)
from services.runtime.scheduling.dispatch import steps_to_take
from services.runtime.scheduling.fair_queue import FairQueue
from services.runtime.scheduling.forecast import StepTimes, Work, seconds_to_finish
from services.runtime.scheduling.slots import (
    Dispatch,
    Event,
    Failed,
    Preempted,
    Request,
    RequestState,
    SlotDevice,
    State,
)
from services.runtime.wire.caller import ANONYMOUS, Caller
from services.runtime.wire.errors import RequestError, resource_exhausted, unavailable
from services.runtime.wire.timing import Timed

logger = logging.getLogger(__name__)
MIN_RETRY_S = 0.01
RECOVERY_INTERVAL_S = 2.0  # between attempts to reset a device that failed
PLANNED_SHARE = 0.9  # of a caller's deadline; the rest covers the response and slower steps


class SlotScheduler(Generic[Request, State]):
    """Gives waiting requests the slots of a device, in the order of `FairQueue`.

    Only the device thread calls `tick`; any thread may call the other methods.
    """

    def __init__(
        self,
        device: SlotDevice[Request, State],
        *,
        max_queued: int,
        clock: Callable[[], float] = time.monotonic,
        observe: Callable[[Dispatch[Request, State]], None] = lambda dispatch: None,
    ) -> None:
        """Starts with free slots.

        Args:
            device: Computes the steps.
            max_queued: Capacity of the queue; a request that finds no room is refused.
            clock: Returns seconds.
            observe: Called on the device thread with each dispatch that contains a traced request,
                before the steps are counted down.

        Raises:
            ValueError: max_queued is below 1.
        """
        if max_queued < 1:
            raise ValueError(f"max_queued: expected at least 1, got {max_queued}")
        self._device, self._clock, self._observe = device, clock, observe
        self._queue: FairQueue[RequestState[Request, State]] = FairQueue(max_queued)
        self._running: dict[int, RequestState[Request, State]] = {}
        self._lock = Lock()  # guards the two above; never held while the device computes
        self._times = StepTimes()
        self._usable = self._healthy = True  # unusable: a reset is due; unhealthy: a reset failed
        self._stopping = False

    @property
    def queued(self) -> int:
        """Requests that wait for a slot."""
        return len(self._queue)

    @property
    def active(self) -> int:
        """Requests that hold a slot."""
        return len(self._running)

    def load(self) -> Load:
        """Returns the current load."""
        with self._lock:
            waiting = self._queue.items()
            return Load(
                slots=self._device.slots,
                active=len(self._running),
                capacity=self._queue.capacity,
                queued=len(waiting),
                queued_steps=sum(state.steps_left * state.request.rows for state in waiting),
            )

    @property
    def busy(self) -> bool:
        """Whether `tick` has anything to do, a reset of the device included."""
        with self._lock:
            return bool(self._queue or self._running or not self._usable)

    @property
    def healthy(self) -> bool:
        """Whether the device works; if not, each tick tries to recover it."""
        return self._healthy

    def submit(
        self,
        request: Request,
        callback: Callable[[Event[State]], None],
        *,
        stream: bool,
        within_s: float | None = None,
        caller: Caller = ANONYMOUS,
        trace: SpanContext | None = None,
    ) -> RequestState[Request, State]:
        """Queues a request.

        Args:
            request: The request to run.
            callback: Called on the device thread with the request's events, see `RequestState`.
            stream: Whether `callback` receives each step.
            within_s: Seconds until the caller's deadline; None for no deadline.
            caller: Caller of the request.
            trace: Span that the request belongs to, if it is traced.

        Raises:
            RequestError: RESOURCE_EXHAUSTED: the queue has no room, or the request would miss its
                deadline. UNAVAILABLE: the process stops, or the device fails.
        """
        steps = request.steps_left
        state = RequestState(request, callback, stream, self._clock(), steps, trace)
        with self._lock:
            if self._stopping:
                raise count_refusal(
                    "stopping", unavailable("this replica stops: another one may serve the request")
                )
            if not self._healthy:
                raise count_refusal(
                    "device_fails",
                    unavailable(
                        "this replica's device fails: another one may serve the request",
                        retry_after_s=RECOVERY_INTERVAL_S,
                    ),
                )
            if not self._queue.has_room(caller):
                raise _refusal(
                    "queue_full",
                    f"{len(self._queue)} requests wait already, this caller may add no more",
                    self._seconds_to_finish(0, 1, caller),
                )
            # An idle device accepts every request; otherwise one slow step would refuse all others.
            if within_s is not None and (self._queue or self._running):
                finish_s = self._seconds_to_finish(steps, request.rows, caller)
                planned_s = PLANNED_SHARE * within_s
                if finish_s is not None and finish_s > planned_s:
                    raise _refusal(
                        "too_late",
                        f"{steps} steps from now would end in {finish_s:.3g} s; the caller's "
                        f"deadline is in {within_s:.3g} s, of which {planned_s:.3g} s are usable",
                        finish_s - planned_s,
                    )
            self._queue.push(state, caller, steps * request.rows)
        return state

    def max_steps_within(
        self, steps: int, rows: int, within_s: float | None, caller: Caller = ANONYMOUS
    ) -> int:
        """Returns the largest number of steps that a new request finishes before its deadline.

        Args:
            steps: Upper bound.
            rows: Rows that one step computes.
            within_s: Seconds until the caller's deadline; None for no deadline.
            caller: Caller of the request.
        """
        with self._lock:
            if within_s is None or self._seconds_to_finish(steps, rows, caller) is None:
                return steps
            # More steps never end sooner, so the largest number is found by bisection.
            return bisect_right(
                range(1, steps + 1),
                PLANNED_SHARE * within_s,
                key=lambda each: self._seconds_to_finish(each, rows, caller) or 0.0,
            )

    def cancel(self, state: RequestState[Request, State]) -> None:
        """Cancels a request: it leaves the queue or its slot before the next dispatch.

        A finished request stays finished.
        """
        with self._lock:
            state.cancelled = True
            self._queue.remove(state)

    def preempt(self) -> None:
        """Makes the next tick preempt all requests, and refuses new ones.

        For a process that stops: another replica resumes what is unfinished.
        """
        with self._lock:
            self._stopping = True

    def tick(self) -> bool:
        """Frees the slots of cancelled requests, admits waiting ones, and dispatches once.

        An exception from the device ends the requests in its slots and nothing else; the next tick
        resets the device. If the reset fails, the waiting requests are preempted and new ones are
        refused until a reset succeeds.

        Returns:
            Whether there is more to do at once.
        """
        if not self._usable and not self._recover():
            return False
        start_s = self._clock()
        try:
            self._release_cancelled()
            if self._stopping:
                self._preempt_all()
                return self.busy
            self._admit_waiting()
            if self._running:
                self._dispatch(start_s)
        except Exception as error:
            self._fail_running(error)
        return self.busy

    def _recover(self) -> bool:
        try:
            self._device.reset()
        except Exception:
            logger.exception(
                "the device cannot be reset", extra={"retry_in_s": RECOVERY_INTERVAL_S}
            )
            self._healthy = False
            self._preempt_waiting()
        else:
            self._usable = self._healthy = True
        return self._healthy

    def _release_cancelled(self) -> None:
        for slot in [slot for slot, state in self._running.items() if state.cancelled]:
            self._device.release(slot)
            self._free(slot)

    def _admit_waiting(self) -> None:
        for slot in range(self._device.slots):
            if slot in self._running:
                continue
            with self._lock:
                state = self._queue.pop()
                if state is None:
                    return
                self._running[slot] = state
                state.start_s = self._clock()
            WAITS.record(state.start_s - state.arrival_s, trace=state.trace)
            try:
                self._device.admit(slot, state.request)
                state.prefill_s = self._clock() - state.start_s
            except Exception as error:  # the other slots are not affected
                self._free(slot)
                self._fail([state], error)

    def _preempt_waiting(self) -> None:
        while True:
            with self._lock:
                state = self._queue.pop()
            if state is None:
                return
            state.callback(Preempted(None))

    def _preempt_all(self) -> None:
        self._preempt_waiting()
        states = self._device.advance(0, set(self._running)) if self._running else {}
        for slot, state in list(self._running.items()):
            self._device.release(slot)
            self._free(slot)
            state.callback(Preempted(states[slot]))

    def _dispatch(self, start_s: float) -> None:
        running = dict(self._running)
        rows = sum(state.request.rows for state in running.values())
        steps = steps_to_take(
            [state.steps_left for state in running.values()],
            stream=any(state.stream for state in running.values()),
            waiting=self.queued > 0,
            step_s=self._times.seconds(rows),
        )
        ending = {slot for slot, state in running.items() if state.steps_left == steps}
        streaming = {slot for slot, state in running.items() if state.stream}
        advance_s = self._clock()
        states = self._device.advance(steps, ending | streaming)
        end_s = self._clock()
        DEVICE.add(end_s - start_s)
        STEPS.add(steps * rows)
        if any(state.trace is not None for state in running.values()):
            self._observe(
                Dispatch(
                    start_s=advance_s,
                    end_s=end_s,
                    device_to_host_s=self._device.device_to_host_s,
                    steps=steps,
                    requests=list(running.values()),
                )
            )
        if steps:  # includes the time to admit new requests, which delays every slot's step
            self._times.measure(rows, (end_s - start_s) / steps)
        for slot, state in running.items():
            state.steps_left -= steps
            state.device_s += (end_s - start_s) * state.request.rows / rows
            if slot in streaming and steps:
                state.callback(states[slot])
            if slot in ending:
                self._free(slot)
                queue_s = state.queue_s or 0.0
                compute_s = end_s - state.arrival_s - queue_s
                state.callback(Timed(states[slot], queue_s, compute_s, state.device_s))

    def _fail_running(self, error: Exception) -> None:
        self._usable = False
        with self._lock:
            failed = list(self._running.values())
            self._running.clear()
        self._fail(failed, error)

    def _fail(self, states: list[RequestState[Request, State]], error: Exception) -> None:
        failure = uuid.uuid4().hex[:12]
        logger.error(
            "compute failed", exc_info=error, extra={"failure": failure, "requests": len(states)}
        )
        for state in states:
            state.callback(Failed(failure))

    def _free(self, slot: int) -> None:
        with self._lock:
            del self._running[slot]

    def _seconds_to_finish(self, steps: int, rows: int, caller: Caller) -> float | None:
        """Returns the seconds until a new request would finish; None if no step was measured."""
        ahead, behind = self._queue.split(caller)
        return seconds_to_finish(
            Work(steps, rows),
            running=_work(self._running.values()),
            ahead=_work(ahead),
            behind=_work(behind),
            slots=self._device.slots,
            times=self._times,
        )


def _work(states: Iterable[RequestState[Request, State]]) -> list[Work]:
    return [Work(state.steps_left, state.request.rows) for state in states]


def _refusal(reason: Reason, sentence: str, retry_after_s: float | None) -> RequestError:
    retry_after_s = max(MIN_RETRY_S, retry_after_s or 0.0)
    return count_refusal(
        reason, resource_exhausted(f"{sentence}: try again later", retry_after_s=retry_after_s)
    )
