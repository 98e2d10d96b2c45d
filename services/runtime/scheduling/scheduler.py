"""Iteration-level scheduler: requests join and leave the slots of a device between its steps.

`SlotPolicy` decides, `SlotScheduler` applies its decisions to a device. Plain Python over a
protocol, without threads or a model: `services.runtime.scheduling.inflight` runs it on the device
thread, tests and benchmarks run it on simulated devices and clocks.
"""

import logging
import time
import uuid
from collections.abc import Callable
from threading import Lock
from typing import Generic

from opentelemetry.trace import SpanContext

from services.runtime.observability.instruments import DEVICE, STEPS, WAITS, Load, count_refusal
from services.runtime.scheduling.dispatch_spans import record_dispatch
from services.runtime.scheduling.slot_policy import SlotPolicy, rows_of
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
from services.runtime.wire.errors import unavailable
from services.runtime.wire.timing import Timed

logger = logging.getLogger(__name__)
RECOVERY_INTERVAL_S = 2.0  # between attempts to reset a device that failed


class SlotScheduler(Generic[Request, State]):
    """Applies a `SlotPolicy` to a device.

    Only the device thread calls `tick`; any thread may call the other methods.
    """

    def __init__(
        self,
        device: SlotDevice[Request, State],
        *,
        max_queued: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts with free slots.

        Args:
            device: Computes the steps.
            max_queued: Capacity of the queue; a request that finds no room is refused.
            clock: Returns seconds.

        Raises:
            ValueError: max_queued is below 1.
        """
        if max_queued < 1:
            raise ValueError(f"max_queued: expected at least 1, got {max_queued}")
        self._device, self._clock = device, clock
        self._policy: SlotPolicy[Request, State] = SlotPolicy(
            device.slots, max_queued, device.rows_at_once
        )
        self._lock = Lock()  # guards the policy; never held while the device computes
        self._usable = self._healthy = True  # unusable: a reset is due; unhealthy: a reset failed
        self._stopping = False

    def load(self) -> Load:
        """Returns the current load."""
        with self._lock:
            return self._policy.load()

    @property
    def busy(self) -> bool:
        """Whether `tick` has anything to do, a reset of the device included."""
        with self._lock:
            return bool(self._policy.queue or self._policy.running or not self._usable)

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
            self._policy.submit(state, caller, within_s)
        return state

    def max_steps_within(
        self, steps: int, rows: int, within_s: float | None, caller: Caller = ANONYMOUS
    ) -> int:
        """Returns the largest number of steps that ends in time; see `SlotPolicy`."""
        with self._lock:
            return self._policy.max_steps_within(steps, rows, within_s, caller)

    def cancel(self, state: RequestState[Request, State]) -> None:
        """Cancels a request: it leaves the queue or its slot before the next dispatch.

        A finished request stays finished.
        """
        with self._lock:
            self._policy.cancel(state)

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
            if self._policy.running:
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
        for slot in self._policy.cancelled_slots():
            self._device.release(slot)
            self._free(slot)

    def _admit_waiting(self) -> None:
        for free in self._policy.free_slots():
            self._admit_next(free)
        while (slot := self._slot_to_park()) is not None:
            self._park(slot)
            self._admit_next(slot)

    def _slot_to_park(self) -> int | None:
        with self._lock:
            return self._policy.slot_to_park()

    def _park(self, slot: int) -> None:
        progress = self._device.advance(0, [slot])[slot]
        self._device.release(slot)
        with self._lock:
            self._policy.park(slot, progress, self._clock())

    def _admit_next(self, slot: int) -> None:
        with self._lock:
            start_s = self._clock()
            state = self._policy.start_next(slot, start_s)
        if state is None:
            return
        WAITS.record(start_s - state.wait_starts_s[-1], trace=state.trace)
        try:
            self._device.admit(slot, state.request, state.parked)
            state.stays[-1].prefill_s = self._clock() - start_s
        except Exception as error:  # the other slots are not affected
            self._free(slot)
            self._fail([state], error)

    def _preempt_waiting(self) -> None:
        while True:
            with self._lock:
                state = self._policy.queue.pop()
            if state is None:
                return
            state.callback(Preempted(state.parked))

    def _preempt_all(self) -> None:
        self._preempt_waiting()
        running = dict(self._policy.running)
        states = self._device.advance(0, set(running)) if running else {}
        for slot, state in running.items():
            self._device.release(slot)
            self._free(slot)
            state.callback(Preempted(states[slot]))

    def _dispatch(self, start_s: float) -> None:
        policy, running = self._policy, self._policy.turn()
        rows, steps = rows_of(running.values()), policy.next_steps(running)
        ending = {slot for slot, state in running.items() if state.steps_left == steps}
        streaming = {slot for slot, state in running.items() if state.stream}
        advance_s = self._clock()
        resting = policy.running.keys() - running.keys()
        states = self._device.advance(steps, ending | streaming, resting)
        end_s = self._clock()
        DEVICE.add(end_s - start_s)
        STEPS.add(steps * rows)
        dispatch = Dispatch(
            start_s=advance_s,
            stepped_s=end_s - self._device.device_to_host_s,
            end_s=end_s,
            steps=steps,
        )
        record_dispatch(dispatch, running.values())
        with self._lock:
            policy.finish(running, steps, (end_s - start_s) / max(1, steps))
        for slot, state in running.items():
            state.device_s += (end_s - start_s) * state.request.rows / rows
            if slot in streaming and steps:
                state.callback(states[slot])
            if slot in ending:
                self._free(slot)
                compute_s = end_s - state.arrival_s - state.queue_s
                state.callback(Timed(states[slot], state.queue_s, compute_s, state.device_s))

    def _fail_running(self, error: Exception) -> None:
        self._usable = False
        with self._lock:
            failed = [self._policy.free(slot) for slot in list(self._policy.running)]
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
            self._policy.free(slot)
