"""Spans recorded after the fact, from the times that a scheduler or a batcher measured."""

import time
from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext

from services.runtime.observability import tracing
from services.runtime.observability.span_attributes import Attributes

NEW_TRACE = trace.INVALID_SPAN_CONTEXT  # parent of a span that starts a trace


def record_span(
    name: str,
    start_ns: int,
    end_ns: int,
    *,
    parent: SpanContext | None = None,
    links: Sequence[SpanContext] = (),
    attributes: Attributes | None = None,
) -> SpanContext:
    """Records a span from `start_ns` to `end_ns`, in nanoseconds since the epoch.

    Its parent is the current span by default; NEW_TRACE starts a trace. An end before the start
    counts as the start.
    """
    context = None
    if parent is not None:
        base = None if parent.is_valid else Context()  # a new trace has no caller in its baggage
        context = trace.set_span_in_context(NonRecordingSpan(parent), base)
    span = tracing.tracer.start_span(
        name,
        context,
        attributes=attributes,
        links=[Link(each) for each in links],
        start_time=start_ns,
    )
    span.end(max(start_ns, end_ns))
    return span.get_span_context()


def clock_offset_ns() -> int:
    """Returns the difference between the time since the epoch and time.monotonic_ns().

    Times that are compared with each other need the same offset: an adjustment of the system clock
    changes it.
    """
    return time.time_ns() - time.monotonic_ns()


def epoch_ns(seconds: float, offset_ns: int) -> int:
    """Returns a time of time.monotonic() in nanoseconds since the epoch, given the offset."""
    return round(seconds * 1e9) + offset_ns
