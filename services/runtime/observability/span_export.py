"""Export of spans: sampling, and bounded batches that a background thread sends.

Source: OpenTelemetry specification, "Sampling", "Batching processor" and "OTLP Exporter".
"""

import os
from collections.abc import Callable, Sequence
from threading import Thread

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
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
from services.runtime.observability.otlp_exporters import span_exporter

DEFAULT_RATIO = 0.1  # share of new traces that are sampled, unless OTEL_TRACES_SAMPLER is set
LAST_EXPORT_S = 5.0  # time limit of the last export when the process ends
ABORT_S = 0.5  # for an export that waits to try again to end


def exporting_provider(
    exporter: str, service_name: str
) -> tuple[TracerProvider, Callable[[], None]]:
    """Returns a tracer provider that exports to "otlp" or "console", and a function to end it.

    The OTEL_ environment variables configure it. The function sends the last spans within
    `LAST_EXPORT_S`.
    """
    configured = bool(os.environ.get("OTEL_TRACES_SAMPLER"))
    provider = TracerProvider(
        sampler=None if configured else ParentBasedTraceIdRatio(DEFAULT_RATIO),
        resource=Resource.create({SERVICE_NAME: service_name}),
        shutdown_on_exit=False,  # the function returned does it
    )
    provider.sampler = LinkSampler(provider.sampler)
    provider.add_span_processor(CallerProcessor())
    if exporter == "console":
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
        return provider, provider.shutdown
    otlp = span_exporter()
    provider.add_span_processor(BatchSpanProcessor(otlp))

    def end() -> None:
        # On a thread: an export over HTTP that has begun cannot be interrupted.
        ending = Thread(target=provider.shutdown, daemon=True)
        ending.start()
        ending.join(LAST_EXPORT_S)
        if ending.is_alive():
            otlp.shutdown()
            ending.join(ABORT_S)

    return provider, end


class LinkSampler(Sampler):
    """Samples a root span that has links if one of the linked spans is sampled.

    A batch starts a trace of its own and is linked to the requests in it. With an independent
    decision the link from a sampled request would often point to a batch that was not sampled.
    """

    def __init__(self, sampler: Sampler) -> None:
        """Wraps the sampler that decides about all other spans."""
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
