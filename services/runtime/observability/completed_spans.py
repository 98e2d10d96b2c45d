"""Spans of what is over: made at once with all that is known, in a fraction of an open one's time.

An open span has a lock, limits and copies for what may still be added to it. Of a request's hundred
spans most are recorded afterwards, by the process that computes, so that this counts.

Source: OpenTelemetry specification, "Tracing SDK", "Sampling".
"""

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, Tracer
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, TraceFlags, TraceState

from services.runtime.observability import span_attributes
from services.runtime.observability.span_attributes import Attributes

SCOPE = InstrumentationScope("muse", schema_url=span_attributes.SCHEMA_URL)
NO_STATE = TraceState()
SAMPLED, NOT_SAMPLED = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)


def finish(
    tracer: Tracer,
    name: str,
    start_ns: int,
    end_ns: int,
    parent: SpanContext | None,
    links: Sequence[SpanContext],
    attributes: Attributes,
) -> SpanContext:
    """Hands a span that is over to the processors of a tracer.

    It is sampled if its parent is, which is what every sampler says that goes by the trace. One
    without a parent is if it has to do with one that is: else that one's link would lead nowhere.

    Args:
        tracer: Whose.
        name: Such as "queue".
        start_ns: Its start, nanoseconds since the epoch.
        end_ns: Its end.
        parent: What it is a part of; None begins a trace.
        links: Spans it has to do with otherwise.
        attributes: What to remember of it; of strings, numbers and truth values.
    """
    ids = tracer.id_generator
    if parent is not None:
        trace_id, flags, state = parent.trace_id, parent.trace_flags, parent.trace_state
    else:
        trace_id, state = ids.generate_trace_id(), NO_STATE
        flags = SAMPLED if any(each.trace_flags.sampled for each in links) else NOT_SAMPLED
    context = SpanContext(trace_id, ids.generate_span_id(), False, flags, state)
    if flags.sampled:
        tracer.span_processor.on_end(
            ReadableSpan(
                name,
                context,
                parent,
                tracer.resource,
                attributes,
                links=[Link(each) for each in links],
                start_time=start_ns,
                end_time=end_ns,
                instrumentation_scope=SCOPE,
            )
        )
    return context
