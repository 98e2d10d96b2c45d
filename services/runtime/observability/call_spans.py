"""Client spans of gRPC calls; W3C trace context and baggage travel in the metadata."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import grpc
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from services.runtime.observability import span_attributes, tracing
from services.runtime.observability.exporter_selection import selected_exporter
from services.runtime.observability.span_attributes import Attributes

HEALTH = "/grpc.health.v1.Health/"
_waiting_for_end: set[asyncio.Task[None]] = set()
_attributes_at_end: ContextVar[Attributes | None] = ContextVar("attributes_at_end", default=None)


@contextmanager
def client_span_attributes(attributes: Attributes) -> Iterator[None]:
    """Adds attributes to the client span of every call that starts inside the block.

    They are read when the call ends, entries added until then included.
    """
    token = _attributes_at_end.set(attributes)
    try:
        yield
    finally:
        _attributes_at_end.reset(token)


def client_interceptors() -> list[grpc.aio.ClientInterceptor]:
    """Returns the interceptors of a channel; an empty list when tracing is off."""
    if selected_exporter("TRACES") == "none":
        return []
    return [_UnaryCalls(), _StreamingCalls()]


class _UnaryCalls(grpc.aio.UnaryUnaryClientInterceptor):
    """Traces calls with one response."""

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await _traced(continuation, details, request)


class _StreamingCalls(grpc.aio.UnaryStreamClientInterceptor):
    """Traces calls with a stream of responses."""

    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await _traced(continuation, details, request)


async def _traced(continuation: Any, details: Any, request: Any) -> Any:
    method = details.method.decode() if isinstance(details.method, bytes) else details.method
    if method.startswith(HEALTH):  # belongs to no request, and a watch has no end
        return await continuation(details, request)
    opened = tracing.tracer.start_span(
        method.lstrip("/"), kind=SpanKind.CLIENT, attributes=span_attributes.call(method)
    )
    # Imported here: at import it reads OTEL_PROPAGATORS, which a process checks when it starts.
    from opentelemetry.propagate import inject

    carrier: dict[str, str] = {}
    inject(carrier, context=trace.set_span_in_context(opened))
    metadata = grpc.aio.Metadata(*(details.metadata or ()), *carrier.items())
    try:
        call = await continuation(details._replace(metadata=metadata), request)
    except BaseException:
        opened.set_attributes(_attributes_at_end.get() or {})
        opened.set_status(StatusCode.ERROR, "the call did not start")
        opened.end()
        raise
    task = asyncio.create_task(_end_with_call(opened, call, _attributes_at_end.get()))
    _waiting_for_end.add(task)  # the event loop itself keeps only a weak reference
    task.add_done_callback(_waiting_for_end.discard)
    return call


async def _end_with_call(opened: Span, call: grpc.aio.Call, attributes: Attributes | None) -> None:
    """Ends a client span when its call ends; every status but OK is an error."""
    try:
        code = await call.code()
        opened.set_attributes(span_attributes.end_of_call(code))
        if code is not grpc.StatusCode.OK:
            opened.set_status(StatusCode.ERROR, code.name)
    except asyncio.CancelledError:
        opened.set_status(StatusCode.ERROR, "the event loop ended before the call")
        raise
    finally:
        opened.set_attributes(attributes or {})
        opened.end()
