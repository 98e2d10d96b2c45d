"""Spans on their way out: never waited for, and counted where they are lost.

Source: OpenTelemetry specification, "Batching processor" and "OTLP Exporter".
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from threading import Lock, Timer

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)

from services.runtime.observability.tracing import on_whose_behalf

logger = logging.getLogger(__name__)
TELL_EVERY_S = 30.0  # at most so often the log hears of lost spans
LAST_SPANS_S = 5.0  # a process that ends waits so long for a collector that does not answer
MOST_WAITING = 2048  # spans, unless OTEL_BSP_MAX_QUEUE_SIZE says otherwise
BATCH = 512  # spans of one export, unless OTEL_BSP_MAX_EXPORT_BATCH_SIZE says otherwise


def start_export(exporter: str, service_name: str) -> Callable[[], None]:
    """Makes all spans of the process go to an exporter; see `exporting_provider`."""
    provider, end = exporting_provider(exporter, service_name)
    trace.set_tracer_provider(provider)
    return end


def exporting_provider(
    exporter: str, service_name: str
) -> tuple[TracerProvider, Callable[[], None]]:
    """Returns what makes spans that go to an exporter, as the OTEL_ environment variables say.

    Args:
        exporter: "otlp" or "console".
        service_name: Such as "muse.base".

    Returns:
        It, and what to call at the end: sends the last spans, for `LAST_SPANS_S` at most.
    """
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service_name}))
    provider.add_span_processor(CallerOnSpans())
    if exporter == "console":
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
        return provider, provider.shutdown
    from services.runtime.observability.otlp import (
        OTLPExporter,  # here: console does without gRPC's part
    )

    sender = OTLPExporter()
    provider.add_span_processor(BoundedExport(sender))

    def end() -> None:
        giving_up = Timer(LAST_SPANS_S, sender.shutdown)
        giving_up.daemon = True
        giving_up.start()
        try:
            provider.shutdown()
        finally:
            giving_up.cancel()

    return provider, end


class CallerOnSpans(SpanProcessor):
    """Copies on whose behalf a request is made from the baggage to every span."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Copies what is there."""
        span.set_attributes(on_whose_behalf(parent_context))


class LostSpans:
    """How many spans were lost, and why; the log hears of it now and then."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """None so far."""
        self._clock, self._lock = clock, Lock()
        self.total, self._untold, self._told_s = 0, 0, -float("inf")

    def add(self, spans: int, reason: str) -> None:
        """Counts some more."""
        with self._lock:
            self.total += spans
            self._untold += spans
            untold, now_s = self._untold, self._clock()
            if now_s - self._told_s < TELL_EVERY_S:
                return
            self._untold, self._told_s = 0, now_s
        extra = {"spans": untold, "spans_in_all": self.total, "reason": reason}
        logger.warning("spans were dropped", extra=extra)


class BoundedExport(SpanProcessor):
    """Exports spans in batches from a thread of its own; whoever ends a span never waits.

    The SDK's processor does that; around it stands what it lacks: a count of the spans that found
    no room, or that the collector did not take.
    """

    def __init__(self, exporter: SpanExporter, lost: LostSpans | None = None) -> None:
        """Starts the thread.

        Args:
            exporter: Where the spans go.
            lost: Counts those that do not arrive.
        """
        self.lost = lost or LostSpans()
        self._most = int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE", MOST_WAITING))
        batch = int(os.environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", min(BATCH, self._most)))
        self._waiting, self._lock = 0, Lock()
        self._inner = BatchSpanProcessor(
            _Counted(exporter, self._taken, self.lost),
            max_queue_size=self._most,
            max_export_batch_size=batch,
        )

    def on_end(self, span: ReadableSpan) -> None:
        """Lets a span wait for the next batch, if there is room."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        with self._lock:
            room = self._waiting < self._most
            self._waiting += room
        if room:
            self._inner.on_end(span)
        else:
            self.lost.add(1, f"{self._most} spans wait already")

    def shutdown(self) -> None:
        """Sends what waits, then ends."""
        self._inner.shutdown()  # type: ignore[no-untyped-call]  # of the SDK

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Sends what waits."""
        return self._inner.force_flush(timeout_millis)

    def _taken(self, spans: int) -> None:
        with self._lock:
            self._waiting -= spans


class _Counted(SpanExporter):
    """An exporter that counts what it could not deliver."""

    def __init__(self, inner: SpanExporter, taken: Callable[[int], None], lost: LostSpans) -> None:
        self._inner, self._taken, self._lost = inner, taken, lost

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Exports a batch."""
        self._taken(len(spans))
        result = self._inner.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._lost.add(len(spans), "the collector did not take them; its log may say why")
        return result

    def shutdown(self) -> None:
        """Ends the exporter; one that waits to try again gives up."""
        self._inner.shutdown()
