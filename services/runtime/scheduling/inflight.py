"""Requests that join a device between its steps, as streams of what happens to them."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Generic

import grpc

from services.runtime.observability.instruments import Load
from services.runtime.observability.tracing import recorded_span
from services.runtime.scheduling.device_thread import DeviceThread
from services.runtime.scheduling.dispatch_spans import record_dispatch, record_request
from services.runtime.scheduling.scheduler import MEND_EVERY_S, SlotScheduler
from services.runtime.scheduling.slots import Failed, HandedBack, Job, SlotDevice, State
from services.runtime.wire.caller import ANYBODY, Claim
from services.runtime.wire.errors import RequestError
from services.runtime.wire.timing import Timed


class InflightBatcher(Generic[Job, State]):
    """Runs a scheduler on the device thread while there are requests.

    It belongs to one event loop.
    """

    def __init__(
        self, device: SlotDevice[Job, State], thread: DeviceThread, *, max_queued: int
    ) -> None:
        """Prepares to schedule.

        Args:
            device: What computes.
            thread: The one thread that uses it.
            max_queued: Places of the waiting line; whoever finds no room in it is refused.

        Raises:
            ValueError: max_queued is below 1.
        """
        self._scheduler = SlotScheduler(device, max_queued=max_queued, observe=record_dispatch)
        self._thread = thread
        self._worker: asyncio.Task[None] | None = None
        self._works, self._works_changed = True, asyncio.Event()
        self._draining = asyncio.Event()

    @property
    def queued(self) -> int:
        """Requests that wait for a slot."""
        return self._scheduler.queued

    @property
    def active(self) -> int:
        """Requests that hold a slot."""
        return self._scheduler.active

    def load(self) -> Load:
        """Returns how busy it is; any thread may ask."""
        return self._scheduler.load()

    def most_in_time(
        self, steps: int, rows: int, within_s: float | None, claim: Claim = ANYBODY
    ) -> int:
        """Returns the most steps, at most so many, that a job of now is done with in time.

        Args:
            steps: As many as are wanted.
            rows: Rows that one of them computes.
            within_s: Seconds its caller waits; None for as long as it takes.
            claim: On whose behalf, and how urgent.
        """
        return self._scheduler.most_in_time(steps, rows, within_s, claim)

    async def health(self) -> AsyncGenerator[bool, None]:
        """Yields whether the device works, each time that changes; never ends by itself."""
        while True:
            await self._works_changed.wait()
            self._works_changed.clear()
            yield self._works

    async def events(
        self, job: Job, *, steps: bool, within_s: float | None = None, claim: Claim = ANYBODY
    ) -> AsyncGenerator[State | Timed[State] | HandedBack[State], None]:
        """Yields the job's state after each step, if asked for, and last the timed result.

        If `hand_back` comes before the result, or the device fails before the job got a slot, how
        far it came is last.

        Close it (contextlib.aclosing) or cancel it to give the job up: it leaves its slot, or its
        place in the queue, before the next dispatch.

        Args:
            job: What to run; validated before, since what raises on the device is INTERNAL.
            steps: Whether the steps are told.
            within_s: Seconds its caller waits; None for as long as it takes.
            claim: On whose behalf, and how urgent.

        Raises:
            RequestError: RESOURCE_EXHAUSTED: too many requests wait already, or the job would be
                done too late. UNAVAILABLE: everything is handed back, or the device fails.
                INTERNAL: compute failed; the message names the log's record of it.
        """
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[State | Timed[State] | Failed | HandedBack[State]] = asyncio.Queue()

        def tell(event: State | Timed[State] | Failed | HandedBack[State]) -> None:
            loop.call_soon_threadsafe(told.put_nowait, event)

        ticket = self._scheduler.submit(
            job, tell, watched=steps, within_s=within_s, claim=claim, trace=recorded_span()
        )
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        end_s: float | None = None
        try:
            while True:
                event = await told.get()
                if isinstance(event, Failed):
                    raise RequestError(
                        grpc.StatusCode.INTERNAL,
                        f"internal error {event.failure}; the server's log says more of it",
                    )
                if isinstance(event, Timed):
                    end_s = ticket.arrival_s + event.queue_s + event.compute_s
                    yield event
                    return
                yield event
                if isinstance(event, HandedBack):
                    return
        finally:
            self._scheduler.abandon(ticket)
            record_request(ticket, time.monotonic() if end_s is None else end_s)

    def hand_back(self) -> None:
        """Ends every job before its next step with how far it came; none is taken after."""
        self._scheduler.hand_back()

    async def drain(self) -> None:
        """Waits until no request waits or holds a slot; a device that fails is given up."""
        self._draining.set()
        while self._worker is not None:
            await asyncio.wait([self._worker])

    async def _work(self) -> None:
        try:
            # Asked again after the thread came back: a request may have come on the way.
            while self._scheduler.busy:
                await self._thread.run(self._turn_until_idle)
                if self._works != self._scheduler.works:
                    self._works = self._scheduler.works
                    self._works_changed.set()
                if not self._works:
                    if self._draining.is_set():
                        return
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._draining.wait(), MEND_EVERY_S)
        finally:
            self._worker = None

    def _turn_until_idle(self) -> None:
        while self._scheduler.turn():
            pass
