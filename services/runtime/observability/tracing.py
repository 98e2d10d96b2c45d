"""Traces across services: OpenTelemetry spans, W3C trace context and baggage in calls' metadata.

Off unless the standard OTEL_ environment variables name an exporter; then there is no provider, no
interceptor and no SDK in memory.

Source: W3C Trace Context and Baggage; OpenTelemetry specification, "Environment Variable
Specification".
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import grpc
from opentelemetry import baggage, trace
from opentelemetry import context as trace_context
from opentelemetry.propagate import extract, inject
from opentelemetry.trace import Span, SpanContext, SpanKind, StatusCode

from services.runtime.observability import span_attributes
from services.runtime.observability.span_attributes import Attributes

EXPORTERS = ("otlp", "console", "none")
NEW_TRACE = trace.INVALID_SPAN_CONTEXT  # the parent of what belongs to no request alone
HEALTH = "/grpc.health.v1.Health/"
_tracer = trace.get_tracer("muse", schema_url=span_attributes.SCHEMA_URL)
_endings: set[asyncio.Task[None]] = set()
_notes: ContextVar[Attributes | None] = ContextVar("notes", default=None)


def exporter_wanted(signal: str, environment: Mapping[str, str]) -> str:
    """Returns the exporter that an environment asks for: "otlp", "console" or "none".

    Args:
        signal: What is exported, "TRACES" or "METRICS".
        environment: Variables by name.

    Raises:
        ValueError: OTEL_..._EXPORTER names one there is not.
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return "none"
    endpoints = (f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    default = "otlp" if any(environment.get(name) for name in endpoints) else "none"
    variable = f"OTEL_{signal}_EXPORTER"
    exporter = environment.get(variable) or default
    if exporter not in EXPORTERS:
        raise ValueError(f"{variable}: expected one of {', '.join(EXPORTERS)}, got {exporter!r}")
    return exporter


def tracing_wanted(environment: Mapping[str, str] = os.environ) -> str:
    """Returns the exporter of spans that is asked for; see `exporter_wanted`."""
    return exporter_wanted("TRACES", environment)


def configure_tracing(service_name: str) -> Callable[[], None]:
    """Sets up the export of spans, if the environment asks for it; once a process.

    Args:
        service_name: Such as "muse.base"; OTEL_SERVICE_NAME overrides it.

    Returns:
        What to call at the end: sends the last spans.
    """
    exporter = tracing_wanted()
    if exporter == "none":
        return lambda: None
    from services.runtime.observability.span_export import (
        start_export,  # here, so that none is no SDK either
    )

    global _tracer
    end = start_export(exporter, os.environ.get("OTEL_SERVICE_NAME") or service_name)
    _tracer = trace.get_tracer("muse", schema_url=span_attributes.SCHEMA_URL)
    return end


@contextmanager
def span(
    name: str, *, kind: SpanKind = SpanKind.INTERNAL, **attributes: str | int | float | bool
) -> Iterator[Span]:
    """Opens a span around a block; it ends however the block ends.

    Args:
        name: Such as "decode".
        kind: Which side of a call it is.
        attributes: What to remember of it.
    """
    with _tracer.start_as_current_span(
        name, kind=kind, attributes=attributes, set_status_on_exception=False
    ) as opened:
        try:
            yield opened
        except asyncio.CancelledError:
            opened.set_status(StatusCode.ERROR, "cancelled")
            raise
        except Exception as error:
            opened.set_status(StatusCode.ERROR, str(error))
            raise


def record_span(
    name: str,
    start_ns: int,
    end_ns: int,
    *,
    under: SpanContext | None = None,
    links: Sequence[SpanContext] = (),
    attributes: Attributes | None = None,
) -> SpanContext:
    """Records a span that is over.

    Args:
        name: Such as "queue".
        start_ns: Its start, nanoseconds since the epoch.
        end_ns: Its end.
        under: Its parent, the current span by default; NEW_TRACE gives it none.
        links: Spans it has to do with otherwise.
        attributes: What to remember of it.
    """
    if isinstance(_tracer, trace.ProxyTracer):  # nothing is exported
        return NEW_TRACE
    from services.runtime.observability.completed_spans import (
        finish,  # here, so that none is no SDK either
    )

    tracer: Any = _tracer  # of the SDK, as everything is that exports
    parent = trace.get_current_span().get_span_context() if under is None else under
    said, end_ns = dict(attributes or {}), max(start_ns, end_ns)
    if not parent.is_valid:
        return finish(tracer, name, start_ns, end_ns, None, links, said)
    said |= on_whose_behalf()
    return finish(tracer, name, start_ns, end_ns, parent, links, said)


def on_whose_behalf(context: trace_context.Context | None = None) -> Attributes:
    """Returns what the baggage says of those for whom a request is made, as far as spans say it.

    Args:
        context: Whose baggage; the current one by default.
    """
    found = baggage.get_all(context)
    if not found:
        return {}
    return {
        name: str(found[name])[: span_attributes.LONGEST_BAGGAGE]
        for name in (span_attributes.CALLER, span_attributes.TENANT)
        if name in found
    }


def recording() -> SpanContext | None:
    """Returns the current span, if it is one that is recorded."""
    current = trace.get_current_span()
    return current.get_span_context() if current.is_recording() else None


def clock_offset_ns() -> int:
    """Returns what to add to time.monotonic_ns() for the time since the epoch.

    Asked for once for all the times that are to fit together: clocks are set now and then.
    """
    return time.time_ns() - time.monotonic_ns()


def epoch_ns(seconds: float, offset_ns: int) -> int:
    """Returns a time of time.monotonic() as nanoseconds since the epoch, given the offset."""
    return round(seconds * 1e9) + offset_ns


@contextmanager
def on_behalf_of(caller: str) -> Iterator[None]:
    """Says in the baggage of all calls that are made inside the block who asked for them.

    Args:
        caller: Its name; "" says nothing.
    """
    if not caller or recording() is None:
        yield
        return
    trace.get_current_span().set_attribute(span_attributes.CALLER, caller)
    token = trace_context.attach(baggage.set_baggage(span_attributes.CALLER, caller))
    try:
        yield
    finally:
        trace_context.detach(token)


@contextmanager
def served_call(method: str, metadata: Mapping[str, str]) -> Iterator[Span]:
    """Opens a server's span of one call, as a child of the caller's.

    Args:
        method: Full name, such as "/muse.base.v1.BaseService/Generate".
        metadata: The call's, where the caller's context travels.
    """
    token = trace_context.attach(extract(metadata))
    try:
        with span(
            method.lstrip("/"), kind=SpanKind.SERVER, **span_attributes.call(method)
        ) as opened:
            yield opened
    finally:
        trace_context.detach(token)


@contextmanager
def noting(notes: Attributes) -> Iterator[None]:
    """Has the client's spans of calls that are begun inside the block say more at their ends.

    Args:
        notes: What they say besides; what is added until then, too.
    """
    token = _notes.set(notes)
    try:
        yield
    finally:
        _notes.reset(token)


def client_interceptors() -> list[grpc.aio.ClientInterceptor]:
    """Returns the interceptors of a channel; none when tracing is off."""
    if tracing_wanted() == "none":
        return []
    return [_UnaryCalls(), _StreamingCalls()]


class _UnaryCalls(grpc.aio.UnaryUnaryClientInterceptor):
    """Traces calls with one answer."""

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await _traced(continuation, details, request)


class _StreamingCalls(grpc.aio.UnaryStreamClientInterceptor):
    """Traces calls with a stream of answers."""

    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await _traced(continuation, details, request)


async def _traced(continuation: Any, details: Any, request: Any) -> Any:
    method = details.method.decode() if isinstance(details.method, bytes) else details.method
    if method.startswith(HEALTH):  # part of no request, and a watch has no end
        return await continuation(details, request)
    opened = _tracer.start_span(
        method.lstrip("/"), kind=SpanKind.CLIENT, attributes=span_attributes.call(method)
    )
    carrier: dict[str, str] = {}
    inject(carrier, context=trace.set_span_in_context(opened))
    metadata = grpc.aio.Metadata(*(details.metadata or ()), *carrier.items())
    try:
        call = await continuation(details._replace(metadata=metadata), request)
    except BaseException:
        opened.set_attributes(_notes.get() or {})
        opened.set_status(StatusCode.ERROR, "never began")
        opened.end()
        raise
    ending = asyncio.create_task(_end(opened, call, _notes.get()))
    _endings.add(ending)  # the loop itself keeps no task alive
    ending.add_done_callback(_endings.discard)
    return call


async def _end(opened: Span, call: grpc.aio.Call, notes: Attributes | None) -> None:
    """Waits for the end of a call and ends its span: an error, unless the call was answered OK."""
    try:
        code = await call.code()
        opened.set_attributes(span_attributes.ending(code))
        if code is not grpc.StatusCode.OK:
            opened.set_status(StatusCode.ERROR, code.name)
    except asyncio.CancelledError:
        opened.set_status(StatusCode.ERROR, "the loop ended before the call")
        raise
    finally:
        opened.set_attributes(notes or {})
        opened.end()
