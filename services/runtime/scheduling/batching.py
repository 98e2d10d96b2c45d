"""Dynamic batching: requests that arrive close together share one call of the device."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
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
from services.runtime.observability.instruments import DEVICE, WAITS, Load, count_refusal
from services.runtime.observability.tracing import recorded_span
from services.runtime.scheduling.batch_queue import BatchQueue
from services.runtime.scheduling.device_thread import DeviceThread
from services.runtime.scheduling.forecast import smoothed
from services.runtime.wire.errors import RequestError, resource_exhausted
from services.runtime.wire.timing import Timed

logger = logging.getLogger(__name__)
Request = TypeVar("Request")
Result = TypeVar("Result")
INTERNAL = "internal error; the server's log says more"


class BatchShape(NamedTuple):
    """Size of a batch on the device.

    Attributes:
        rows: Rows of its requests.
        bucket: Rows that the device computes, padding included.
    """

    rows: int
    bucket: int


@dataclass(frozen=True)
class _CompletedBatch:
    """A completed batch; it has a span if one of its requests is traced."""

    start_s: float
    end_s: float
    requests: int
    attributes: span_attributes.Attributes = field(default_factory=dict)
    span: SpanContext | None = None


@dataclass(eq=False)
class _Waiter(Generic[Request, Result]):
    request: Request
    answer: "asyncio.Future[tuple[Result, _CompletedBatch]]"
    arrival_s: float
    trace: SpanContext | None = field(default_factory=recorded_span)


class Batcher(Generic[Request, Result]):
    """Batches requests: a batch starts when it is full, or when its first request has waited.

    It belongs to one event loop. Its task lives only while there are requests.
    """

    def __init__(
        self,
        run_batch: Callable[[list[Request]], list[Result]],
        device: DeviceThread,
        *,
        max_batch_size: int,
        max_wait_s: float,
        max_queued: int,
        shape_of: Callable[[Sequence[Request]], BatchShape] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Creates an idle batcher.

        Args:
            run_batch: Runs on the device thread: takes 1 to max_batch_size requests and returns one
                result each, in order. An exception fails every request of the batch, so validate
                requests before.
            device: Thread to run on.
            max_batch_size: Requests in a batch.
            max_wait_s: Seconds a request waits for others while the device is free.
            max_queued: Requests that may wait; further ones are refused.
            shape_of: Returns the batch shape of requests, for traces; one row each by default.
            clock: Returns seconds, as the event loop counts them.

        Raises:
            ValueError: a limit is below 1, or max_wait_s is negative.
        """
        if max_batch_size < 1 or max_queued < 1 or max_wait_s < 0:
            raise ValueError(
                f"expected max_batch_size >= 1, max_queued >= 1 and max_wait_s >= 0, "
                f"got {max_batch_size}, {max_queued} and {max_wait_s}"
            )
        self._queue: BatchQueue[_Waiter[Request, Result]] = BatchQueue(max_batch_size, max_wait_s)
        self._run_batch, self._device, self._shape_of = run_batch, device, shape_of
        self._clock = clock
        self._max_batch_size, self._max_queued = max_batch_size, max_queued
        self._max_wait_s = max_wait_s
        self._full = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._active = 0
        self._mean_compute_s = 0.0

    def load(self) -> Load:
        """Returns the current load; any thread may call it."""
        queued = len(self._queue)
        return Load(
            slots=self._max_batch_size,
            active=self._active,
            capacity=self._max_queued,
            queued=queued,
            queued_steps=queued,
        )

    async def submit(self, request: Request) -> Timed[Result]:
        """Waits for the result of a request.

        A caller that is cancelled before its batch starts costs no compute.

        Raises:
            RequestError: RESOURCE_EXHAUSTED: the queue is full. INTERNAL: the batch failed; the log
                has one record for all its requests.
        """
        queued = len(self._queue)
        if queued >= self._max_queued:
            batches_ahead = 1 + queued // self._max_batch_size
            retry_after_s = max(self._max_wait_s, batches_ahead * self._mean_compute_s, 0.01)
            raise count_refusal(
                "queue_full",
                resource_exhausted(
                    f"{queued} requests wait already, the queue is full: try again later",
                    retry_after_s=retry_after_s,
                ),
            )
        answer = asyncio.get_running_loop().create_future()
        waiter = _Waiter[Request, Result](request, answer, self._clock())
        self._queue.push(waiter, waiter.arrival_s)
        if self._queue.full:
            self._full.set()
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        batch: _CompletedBatch | None = None
        try:
            result, batch = await waiter.answer
        finally:
            if batch is None:
                self._queue.remove(waiter)
            _record_request(waiter, batch, self._clock())
        queue_s, compute_s = batch.start_s - waiter.arrival_s, batch.end_s - batch.start_s
        WAITS.record(queue_s, trace=waiter.trace)
        return Timed(result, queue_s, compute_s, compute_s / batch.requests)

    async def drain(self) -> None:
        """Waits until no request waits or computes."""
        while self._worker is not None:
            await asyncio.wait([self._worker])

    async def _work(self) -> None:
        try:
            while self._queue:
                await self._wait_for_batch()
                if batch := self._queue.pop_batch():
                    await self._compute(batch)
        finally:
            self._worker = None

    async def _wait_for_batch(self) -> None:
        while self._queue and (remaining_s := self._queue.start_s - self._clock()) > 0:
            self._full.clear()
            with suppress(TimeoutError):  # the batch starts as it is
                await asyncio.wait_for(self._full.wait(), remaining_s)

    async def _compute(self, batch: list[_Waiter[Request, Result]]) -> None:
        def run() -> tuple[list[tuple[_Waiter[Request, Result], Result]], float]:
            # Filtered here, when the device is free: callers may be gone by now.
            live = [waiter for waiter in batch if not waiter.answer.done()]
            start_s = self._clock()
            if not live:
                return [], start_s
            results = self._run_batch([waiter.request for waiter in live])
            return list(zip(live, results, strict=True)), start_s

        self._active = len(batch)
        try:
            (pairs, start_s), compute_s = await self._device.run(run)
        except Exception:  # logged once here, not once for each request
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
        completed = self._completed([waiter for waiter, _ in pairs], start_s, start_s + compute_s)
        self._mean_compute_s = smoothed(self._mean_compute_s, compute_s)
        for waiter, result in pairs:
            if not waiter.answer.done():
                waiter.answer.set_result((result, completed))

    def _completed(
        self, batch: Sequence[_Waiter[Request, Result]], start_s: float, end_s: float
    ) -> _CompletedBatch:
        """Returns a completed batch; records its span if one of its requests is traced."""
        links = [waiter.trace for waiter in batch if waiter.trace is not None]
        if not links:
            return _CompletedBatch(start_s, end_s, len(batch))
        shape = BatchShape(len(batch), len(batch))
        if self._shape_of is not None:
            shape = self._shape_of([waiter.request for waiter in batch])
        attributes = span_attributes.batch(
            requests=len(batch), rows=shape.rows, bucket=shape.bucket
        )
        offset_ns = clock_offset_ns()
        span = record_span(
            "batch",
            epoch_ns(start_s, offset_ns),
            epoch_ns(end_s, offset_ns),
            parent=NEW_TRACE,
            links=links,
            attributes=attributes,
        )
        return _CompletedBatch(start_s, end_s, len(batch), attributes, span)


def _record_request(
    waiter: _Waiter[Request, Result], batch: _CompletedBatch | None, now_s: float
) -> None:
    """Records a request's time in the queue and in its batch as children of the current span."""
    if waiter.trace is None:
        return
    offset_ns = clock_offset_ns()
    arrival_ns = epoch_ns(waiter.arrival_s, offset_ns)
    if batch is None:
        record_span("queue", arrival_ns, epoch_ns(now_s, offset_ns))
        return
    start_ns, end_ns = epoch_ns(batch.start_s, offset_ns), epoch_ns(batch.end_s, offset_ns)
    record_span("queue", arrival_ns, start_ns)
    links = [] if batch.span is None else [batch.span]
    compute = record_span("compute", start_ns, end_ns)
    record_span(
        "dispatch", start_ns, end_ns, parent=compute, links=links, attributes=batch.attributes
    )
