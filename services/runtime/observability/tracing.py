"""OpenTelemetry spans of a process: set-up, spans around a block, and the caller in the baggage.

Tracing is off unless the standard OTEL_ environment variables select an exporter; then no provider
exists and the SDK is not imported.

Source: W3C Trace Context and Baggage; OpenTelemetry specification, "Environment Variable
Specification".
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from opentelemetry import baggage, trace
from opentelemetry import context as trace_context
from opentelemetry.trace import Span, SpanContext, SpanKind, StatusCode

from services.runtime.observability import span_attributes
from services.runtime.observability.exporter_selection import selected_exporter

# The API's proxy: it records nothing until `configure_tracing` installs a provider.
tracer = trace.get_tracer("muse", schema_url=span_attributes.SCHEMA_URL)


def configure_tracing(service_name: str) -> Callable[[], None]:
    """Starts the export of spans if the environment selects an exporter; once a process.

    Returns a function to call at the end of the process, which sends the last spans.
    OTEL_SERVICE_NAME overrides `service_name`.
    """
    exporter = selected_exporter("TRACES")
    if exporter == "none":
        return lambda: None
    # Imported here: without an exporter the SDK stays out of memory.
    from services.runtime.observability.span_export import exporting_provider

    provider, end = exporting_provider(
        exporter, os.environ.get("OTEL_SERVICE_NAME") or service_name
    )
    trace.set_tracer_provider(provider)
    return end


@contextmanager
def span(
    name: str, *, kind: SpanKind = SpanKind.INTERNAL, **attributes: str | int | float | bool
) -> Iterator[Span]:
    """Opens a span around a block; an exception or a cancellation makes its status an error."""
    with tracer.start_as_current_span(name, kind=kind, attributes=attributes) as opened:
        try:
            yield opened
        except asyncio.CancelledError:  # no Exception, so the SDK would leave the status unset
            opened.set_status(StatusCode.ERROR, "cancelled")
            raise


def recorded_span() -> SpanContext | None:
    """Returns the context of the current span, or None if the span is not recorded."""
    current = trace.get_current_span()
    return current.get_span_context() if current.is_recording() else None


@contextmanager
def caller_baggage(caller: str) -> Iterator[None]:
    """Names the caller, if it has an id, in the baggage of every call inside the block."""
    if not caller or recorded_span() is None:
        yield
        return
    trace.get_current_span().set_attribute(span_attributes.CALLER, caller)
    token = trace_context.attach(baggage.set_baggage(span_attributes.CALLER, caller))
    try:
        yield
    finally:
        trace_context.detach(token)
