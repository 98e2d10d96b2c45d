"""Gathers requests that arrive close together into one call of the device."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import grpc
from opentelemetry.trace import SpanContext

from services.runtime.observability import span_attributes
from services.runtime.observability.completed_spans import (
    NEW_TRACE,
    clock_offset_ns,
    epoch_ns,
    record_span,
)
from services.runtime.observability.instruments import DEVICE, WAITS, Load, refused
from services.runtime.observability.tracing import recorded_span
from services.runtime.scheduling.device_thread import DeviceThread
from services.runtime.server.process import StageSettings
from services.runtime.wire.errors import RequestError, resource_exhausted
from services.runtime.wire.timing import Timed

logger = logging.getLogger(__name__)
Request = TypeVar("Request")
Result = TypeVar("Result")
INTERNAL = "internal error; the server's log says more"
SMOOTHING = 0.2  # weight of the newest batch in the running mean of compute seconds


@dataclass(frozen=True, kw_only=True)
class BatchedServerSettings(StageSettings):
    """What a server that batches can be told besides.

    Attributes:
        max_wait_ms: Milliseconds a request waits for company while the device is free.
    """

    max_wait_ms: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.max_wait_ms < float("inf"):
            raise ValueError(f"max_wait_ms: expected at least 0, got {self.max_wait_ms}")


class BatchShape(NamedTuple):
    """What a batch is to the device.

    Attributes:
        rows: Rows of its requests.
        bucket: Rows that are computed, padding included.
    """

    rows: int
    bucket: int


@dataclass(frozen=True)
class _Ran:
    """When a batch ran, of how many, and its span if somebody in it is traced."""

    begin_s: float
    end_s: float
    requests: int
    attributes: span_attributes.Attributes = field(default_factory=dict)
    span: SpanContext | None = None


@dataclass(eq=False)
class _Waiter(Generic[Request, Result]):
    request: Request
    answer: "asyncio.Future[tuple[Result, _Ran]]"
    trace: SpanContext | None = field(default_factory=recorded_span)
    arrival_s: float = field(default_factory=time.monotonic)


class Batcher(Generic[Request, Result]):
    """Batches requests: a batch starts when it is full, or when its first request has waited.

    It belongs to one event loop. Its task lives only while there are requests.
    """

    def __init__(
        self,
        run_batch: Callable[[list[Request]], list[Result]],
        device: DeviceThread,
        *,
        max_size: int,
        max_wait_s: float,
        max_queued: int,
        shape_of: Callable[[Sequence[Request]], BatchShape] | None = None,
    ) -> None:
        """Prepares to batch.

        Args:
            run_batch: Runs on the device thread: 1 to max_size requests to as many results, in
                order. If it raises, every request of the batch fails: validate before.
            device: Where it runs.
            max_size: Requests a batch.
            max_wait_s: How long a request waits for company while the device is free.
            max_queued: Requests that may wait; further ones are refused.
            shape_of: Says what requests are to the device, for traces; a row each by default.

        Raises:
            ValueError: a limit is below 1, or max_wait_s is negative.
        """
        if max_size < 1 or max_queued < 1 or max_wait_s < 0:
            raise ValueError(
                f"expected max_size >= 1, max_queued >= 1 and max_wait_s >= 0, "
                f"got {max_size}, {max_queued} and {max_wait_s}"
            )
        self._run_batch, self._device, self._shape_of = run_batch, device, shape_of
        self._max_size, self._max_wait_s, self._max_queued = max_size, max_wait_s, max_queued
        self._waiters: deque[_Waiter[Request, Result]] = deque()
        self._full = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._active = 0
        self._usual_compute_s = 0.0

    @property
    def queued(self) -> int:
        """Requests that wait for their batch."""
        return len(self._waiters)

    @property
    def active(self) -> int:
        """Requests on the device, or next in line for it."""
        return self._active

    def load(self) -> Load:
        """Returns how busy it is; any thread may ask."""
        queued = self.queued
        return Load(
            slots=self._max_size,
            active=self._active,
            places=self._max_queued,
            queued=queued,
            queued_steps=queued,
        )

    async def submit(self, request: Request) -> Timed[Result]:
        """Waits for the result of a request.

        A caller that is cancelled before its batch starts costs no compute.

        Raises:
            RequestError: RESOURCE_EXHAUSTED: too many requests wait already. INTERNAL: the batch
                failed; the log says how, once for all its requests.
        """
        if self.queued >= self._max_queued:
            batches_ahead = 1 + self.queued // self._max_size
            retry_after_s = max(self._max_wait_s, batches_ahead * self._usual_compute_s, 0.01)
            raise refused(
                "queue_full",
                resource_exhausted(
                    f"{self.queued} requests wait already, as many as may: try again later",
                    retry_after_s=retry_after_s,
                ),
            )
        waiter = _Waiter[Request, Result](request, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        if self.queued >= self._max_size:
            self._full.set()
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        ran: _Ran | None = None
        try:
            result, ran = await waiter.answer
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            _record_request(waiter, ran)
        queue_s, compute_s = ran.begin_s - waiter.arrival_s, ran.end_s - ran.begin_s
        WAITS.record(queue_s, trace=waiter.trace)
        return Timed(result, queue_s, compute_s, compute_s / ran.requests)

    async def drain(self) -> None:
        """Waits until no request waits or is computed."""
        while self._worker is not None:
            await asyncio.wait([self._worker])

    async def _work(self) -> None:
        try:
            while self._waiters:
                await self._gather()
                size = min(self._max_size, len(self._waiters))
                await self._compute([self._waiters.popleft() for _ in range(size)])
        finally:
            self._worker = None

    async def _gather(self) -> None:
        self._full.clear()
        remaining_s = self._waiters[0].arrival_s + self._max_wait_s - time.monotonic()
        if self.queued < self._max_size and remaining_s > 0:
            try:
                await asyncio.wait_for(self._full.wait(), remaining_s)
            except TimeoutError:
                return  # the batch starts as it is

    async def _compute(self, batch: list[_Waiter[Request, Result]]) -> None:
        def run() -> tuple[list[tuple[_Waiter[Request, Result], Result]], float]:
            # Asked here, when the device is free: some may have gone while it was not.
            live = [waiter for waiter in batch if not waiter.answer.done()]
            begin_s = time.monotonic()
            if not live:
                return [], begin_s
            results = self._run_batch([waiter.request for waiter in live])
            return list(zip(live, results, strict=True)), begin_s

        self._active = len(batch)
        try:
            (pairs, begin_s), compute_s = await self._device.run(run)
        except Exception:  # told here once, not by each of its callers
            logger.exception("a batch failed", extra={"requests": len(batch)})
            for waiter in batch:
                if not waiter.answer.done():
                    waiter.answer.set_exception(RequestError(grpc.StatusCode.INTERNAL, INTERNAL))
            return
        finally:
            self._active = 0
        if not pairs:
            return
        DEVICE.add(compute_s)
        ran = self._ran([waiter for waiter, _ in pairs], begin_s, begin_s + compute_s)
        self._usual_compute_s += SMOOTHING * (compute_s - self._usual_compute_s)
        for waiter, result in pairs:
            if not waiter.answer.done():
                waiter.answer.set_result((result, ran))

    def _ran(self, batch: Sequence[_Waiter[Request, Result]], begin_s: float, end_s: float) -> _Ran:
        """Returns how a batch ran; records its span, if somebody in it is traced."""
        links = [waiter.trace for waiter in batch if waiter.trace is not None]
        if not links:
            return _Ran(begin_s, end_s, len(batch))
        shape = BatchShape(len(batch), len(batch))
        if self._shape_of is not None:
            shape = self._shape_of([waiter.request for waiter in batch])
        attributes = span_attributes.batch(
            requests=len(batch), rows=shape.rows, bucket=shape.bucket
        )
        offset_ns = clock_offset_ns()
        span = record_span(
            "batch",
            epoch_ns(begin_s, offset_ns),
            epoch_ns(end_s, offset_ns),
            parent=NEW_TRACE,
            links=links,
            attributes=attributes,
        )
        return _Ran(begin_s, end_s, len(batch), attributes, span)


def _record_request(waiter: _Waiter[Request, Result], ran: _Ran | None) -> None:
    """Records, below the current span, a request's time in the queue and in its batch."""
    if waiter.trace is None:
        return
    offset_ns = clock_offset_ns()
    arrival_ns = epoch_ns(waiter.arrival_s, offset_ns)
    if ran is None:
        record_span("queue", arrival_ns, epoch_ns(time.monotonic(), offset_ns))
        return
    begin_ns, end_ns = epoch_ns(ran.begin_s, offset_ns), epoch_ns(ran.end_s, offset_ns)
    record_span("queue", arrival_ns, begin_ns)
    links = [] if ran.span is None else [ran.span]
    compute = record_span("compute", begin_ns, end_ns)
    record_span(
        "dispatch", begin_ns, end_ns, parent=compute, links=links, attributes=ran.attributes
    )
