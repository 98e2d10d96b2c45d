"""Export of spans: sampling, bounded batches in a background thread, and a count of lost spans.

Source: OpenTelemetry specification, "Sampling", "Batching processor" and "OTLP Exporter".
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
from opentelemetry.sdk.trace.sampling import (
    Decision,
    ParentBasedTraceIdRatio,
    Sampler,
    SamplingResult,
)
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from services.runtime.observability import span_attributes

logger = logging.getLogger(__name__)
DEFAULT_RATIO = 0.1  # share of new traces that are sampled, unless OTEL_TRACES_SAMPLER is set
LOG_INTERVAL_S = 30.0  # least time between two log records about lost spans
LAST_EXPORT_S = 5.0  # time limit of the last export when the process ends
MAX_QUEUE_SIZE = 2048  # spans, unless OTEL_BSP_MAX_QUEUE_SIZE is set
MAX_EXPORT_BATCH_SIZE = 512  # spans, unless OTEL_BSP_MAX_EXPORT_BATCH_SIZE is set


def exporting_provider(
    exporter: str, service_name: str
) -> tuple[TracerProvider, Callable[[], None]]:
    """Returns a tracer provider that exports, as the OTEL_ environment variables configure it.

    Args:
        exporter: "otlp" or "console".
        service_name: Such as "muse.base".

    Returns:
        The provider, and a function to call at the end of the process, which sends the last spans
        within `LAST_EXPORT_S`.
    """
    configured = bool(os.environ.get("OTEL_TRACES_SAMPLER"))
    provider = TracerProvider(
        sampler=None if configured else ParentBasedTraceIdRatio(DEFAULT_RATIO),
        resource=Resource.create({SERVICE_NAME: service_name}),
    )
    provider.sampler = LinkSampler(provider.sampler)
    provider.add_span_processor(CallerProcessor())
    if exporter == "console":
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
        return provider, provider.shutdown
    # Imported here: the console needs no gRPC exporter.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    otlp = OTLPSpanExporter()
    provider.add_span_processor(BoundedExport(otlp))

    def end() -> None:
        time_limit = Timer(LAST_EXPORT_S, otlp.shutdown)
        time_limit.daemon = True
        time_limit.start()
        try:
            provider.shutdown()
        finally:
            time_limit.cancel()

    return provider, end


class LinkSampler(Sampler):
    """Samples a root span that has links if one of the linked spans is sampled.

    A batch starts a trace of its own and is linked to the requests in it. With an independent
    decision the link from a sampled request would often point to a batch that was not sampled.
    """

    def __init__(self, sampler: Sampler) -> None:
        """Wraps a sampler.

        Args:
            sampler: Decides about all other spans.
        """
        self._sampler = sampler

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Returns the decision for a new span; see `Sampler.should_sample`."""
        if links and not trace.get_current_span(parent_context).get_span_context().is_valid:
            sampled = any(link.context.trace_flags.sampled for link in links)
            return SamplingResult(
                Decision.RECORD_AND_SAMPLE if sampled else Decision.DROP, attributes
            )
        return self._sampler.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )

    def get_description(self) -> str:
        """Returns the name of the sampler, as logs show it."""
        return f"LinkSampler{{{self._sampler.get_description()}}}"


class CallerProcessor(SpanProcessor):
    """Copies the caller and the tenant from the baggage to every span."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Adds the attributes to a span that starts."""
        span.set_attributes(span_attributes.caller(parent_context))


class LostSpans:
    """A count of lost spans that logs at most one record in `LOG_INTERVAL_S`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts at 0.

        Args:
            clock: Returns seconds.
        """
        self._clock, self._lock = clock, Lock()
        self.total, self._unlogged, self._logged_at_s = 0, 0, -float("inf")

    def add(self, spans: int, reason: str) -> None:
        """Counts lost spans.

        Args:
            spans: How many.
            reason: Why, for the log.
        """
        with self._lock:
            self.total += spans
            self._unlogged += spans
            unlogged, now_s = self._unlogged, self._clock()
            if now_s - self._logged_at_s < LOG_INTERVAL_S:
                return
            self._unlogged, self._logged_at_s = 0, now_s
        extra = {"spans": unlogged, "spans_in_all": self.total, "reason": reason}
        logger.warning("spans were dropped", extra=extra)


class BoundedExport(SpanProcessor):
    """Exports spans in batches from a background thread; ending a span never blocks.

    The SDK's BatchSpanProcessor does the work. This class adds a count of the spans that found no
    room in its queue, or that the collector did not accept.
    """

    def __init__(self, exporter: SpanExporter, lost: LostSpans | None = None) -> None:
        """Starts the thread.

        Args:
            exporter: Sends the spans.
            lost: Counts the spans that do not arrive.
        """
        self.lost = lost or LostSpans()
        self._capacity = int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE", MAX_QUEUE_SIZE))
        batch_size = min(MAX_EXPORT_BATCH_SIZE, self._capacity)
        self._queued, self._lock = 0, Lock()
        self._processor = BatchSpanProcessor(
            _CountingExporter(exporter, self._dequeued, self.lost),
            max_queue_size=self._capacity,
            max_export_batch_size=int(os.environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", batch_size)),
        )

    def on_end(self, span: ReadableSpan) -> None:
        """Queues a sampled span for the next batch, if the queue has room."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        with self._lock:
            has_room = self._queued < self._capacity
            self._queued += has_room
        if has_room:
            self._processor.on_end(span)
        else:
            self.lost.add(1, f"the queue is full ({self._capacity} spans)")

    def shutdown(self) -> None:
        """Sends the queued spans and ends the thread."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]  # of the SDK

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Sends the queued spans."""
        return self._processor.force_flush(timeout_millis)

    def _dequeued(self, spans: int) -> None:
        with self._lock:
            self._queued -= spans


class _CountingExporter(SpanExporter):
    """An exporter that counts the spans that it could not deliver."""

    def __init__(
        self, exporter: SpanExporter, dequeued: Callable[[int], None], lost: LostSpans
    ) -> None:
        self._exporter, self._dequeued, self._lost = exporter, dequeued, lost

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Exports a batch."""
        self._dequeued(len(spans))
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._lost.add(len(spans), "the collector did not accept them; its log may say why")
        return result

    def shutdown(self) -> None:
        """Ends the exporter; an export that waits for its next attempt stops."""
        self._exporter.shutdown()
