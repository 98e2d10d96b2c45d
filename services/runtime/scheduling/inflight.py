"""In-flight batching for asyncio: each request is a stream of its events."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Generic

import grpc

from services.runtime.observability.instruments import Load
from services.runtime.observability.tracing import recorded_span
from services.runtime.scheduling.device_thread import DeviceThread
from services.runtime.scheduling.dispatch_spans import record_request
from services.runtime.scheduling.scheduler import RECOVERY_INTERVAL_S, SlotScheduler
from services.runtime.scheduling.slots import (
    Event,
    Failed,
    Preempted,
    Request,
    SlotDevice,
    State,
)
from services.runtime.wire.caller import ANONYMOUS, Caller
from services.runtime.wire.errors import RequestError
from services.runtime.wire.timing import Timed


class InflightBatcher(Generic[Request, State]):
    """Runs a `SlotScheduler` on the device thread while there are requests.

    It belongs to one event loop.
    """

    def __init__(
        self, device: SlotDevice[Request, State], thread: DeviceThread, *, max_queued: int
    ) -> None:
        """Creates the scheduler.

        Args:
            device: Computes the steps.
            thread: The one thread that uses the device.
            max_queued: Capacity of the queue; a request that finds no room is refused.

        Raises:
            ValueError: max_queued is below 1.
        """
        self._scheduler = SlotScheduler(device, max_queued=max_queued)
        self._thread = thread
        self._worker: asyncio.Task[None] | None = None
        self._healthy, self._health_changed = True, asyncio.Event()
        self._draining = asyncio.Event()

    def load(self) -> Load:
        """Returns the current load; any thread may call it."""
        return self._scheduler.load()

    def max_steps_within(
        self, steps: int, rows: int, within_s: float | None, caller: Caller = ANONYMOUS
    ) -> int:
        """Returns the largest number of steps that ends in time; see `SlotPolicy`."""
        return self._scheduler.max_steps_within(steps, rows, within_s, caller)

    async def health(self) -> AsyncGenerator[bool, None]:
        """Yields whether the device works, at each change; never ends by itself."""
        while True:
            await self._health_changed.wait()
            self._health_changed.clear()
            yield self._healthy

    async def events(
        self,
        request: Request,
        *,
        stream: bool,
        within_s: float | None = None,
        caller: Caller = ANONYMOUS,
    ) -> AsyncGenerator[State | Timed[State] | Preempted[State], None]:
        """Yields the state after each step if `stream` is set, and last the timed result.

        A preempted request ends with `Preempted` instead: after `preempt`, or if the device fails
        before the request has a slot.

        Close the generator (contextlib.aclosing) or cancel it to cancel the request: it leaves the
        queue or its slot before the next dispatch.

        Args:
            request: A validated request; an exception on the device ends it as INTERNAL.
            stream: Whether to yield each step.
            within_s: Seconds until the caller's deadline; None for no deadline.
            caller: Caller of the request.

        Raises:
            RequestError: RESOURCE_EXHAUSTED: the queue has no room, or the request would miss its
                deadline. UNAVAILABLE: the process stops, or the device fails. INTERNAL: compute
                failed; the message has the failure's id in the log.
        """
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Event[State]] = asyncio.Queue()

        def callback(event: Event[State]) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, event)

        state = self._scheduler.submit(
            request,
            callback,
            stream=stream,
            within_s=within_s,
            caller=caller,
            trace=recorded_span(),
        )
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        end_s: float | None = None
        try:
            while True:
                event = await queue.get()
                if isinstance(event, Failed):
                    raise RequestError(
                        grpc.StatusCode.INTERNAL,
                        f"internal error {event.failure}; the server's log says more of it",
                    )
                if isinstance(event, Timed):
                    end_s = state.arrival_s + event.queue_s + event.compute_s
                    yield event
                    return
                yield event
                if isinstance(event, Preempted):
                    return
        finally:
            self._scheduler.cancel(state)
            record_request(state, time.monotonic() if end_s is None else end_s)

    def preempt(self) -> None:
        """Preempts every request before its next step, and refuses new ones."""
        self._scheduler.preempt()

    async def drain(self) -> None:
        """Waits until no request waits or holds a slot; stops recovering a device that fails."""
        self._draining.set()
        while self._worker is not None:
            await asyncio.wait([self._worker])

    async def _work(self) -> None:
        try:
            # Checked again after each run: a request may have arrived while the thread returned.
            while self._scheduler.busy:
                await self._thread.run(self._tick_until_idle)
                if self._healthy != self._scheduler.healthy:
                    self._healthy = self._scheduler.healthy
                    self._health_changed.set()
                if not self._healthy:
                    if self._draining.is_set():
                        return
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._draining.wait(), RECOVERY_INTERVAL_S)
        finally:
            self._worker = None

    def _tick_until_idle(self) -> None:
        while self._scheduler.tick():
            pass
