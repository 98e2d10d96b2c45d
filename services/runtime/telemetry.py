"""Traces across services: OpenTelemetry spans, W3C trace context in the calls' metadata.

Off unless the standard OTEL_ environment variables name an exporter; then there is no provider, no
interceptor and no SDK in memory.

Source: W3C Trace Context; OpenTelemetry specification, "Environment Variable Specification".
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry import context as trace_context
from opentelemetry import trace
from opentelemetry.propagate import extract, inject
from opentelemetry.trace import Span, SpanKind, StatusCode

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
EXPORTERS = ("otlp", "console", "none")
HEALTH = "/grpc.health.v1.Health/"
_tracer = trace.get_tracer("muse")
_endings: set[asyncio.Task[None]] = set()


def tracing_wanted(environment: Mapping[str, str] = os.environ) -> str:
    """Returns the exporter the environment asks for: "otlp", "console" or "none".

    Raises:
        ValueError: OTEL_TRACES_EXPORTER names one there is not.
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return "none"
    default = "otlp" if any(environment.get(name) for name in ENDPOINTS) else "none"
    exporter = environment.get("OTEL_TRACES_EXPORTER") or default
    if exporter not in EXPORTERS:
        raise ValueError(
            f"OTEL_TRACES_EXPORTER: expected one of {', '.join(EXPORTERS)}, got {exporter!r}"
        )
    return exporter


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
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        ConsoleSpanExporter,
        SimpleSpanProcessor,
    )

    name = os.environ.get("OTEL_SERVICE_NAME") or service_name
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    if exporter == "console":
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    else:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.shutdown


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


def record_span(name: str, start_ns: int, end_ns: int) -> None:
    """Records a span that is over, below the current one.

    Args:
        name: Such as "queue".
        start_ns: Its start, nanoseconds since the epoch.
        end_ns: Its end.
    """
    if trace.get_current_span().is_recording():
        _tracer.start_span(name, start_time=start_ns).end(end_time=max(start_ns, end_ns))


@contextmanager
def served_call(method: str, metadata: Mapping[str, str]) -> Iterator[Span]:
    """Opens a server's span of one call, as a child of the caller's.

    Args:
        method: Full name, such as "/muse.base.v1.BaseService/Generate".
        metadata: The call's, where the caller's context travels.
    """
    token = trace_context.attach(extract(metadata))
    try:
        with span(method.lstrip("/"), kind=SpanKind.SERVER, **_call_attributes(method)) as opened:
            yield opened
    finally:
        trace_context.detach(token)


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
        method.lstrip("/"), kind=SpanKind.CLIENT, attributes=_call_attributes(method)
    )
    carrier: dict[str, str] = {}
    inject(carrier, context=trace.set_span_in_context(opened))
    metadata = grpc.aio.Metadata(*(details.metadata or ()), *carrier.items())
    try:
        call = await continuation(details._replace(metadata=metadata), request)
    except BaseException:
        opened.set_status(StatusCode.ERROR, "never began")
        opened.end()
        raise
    ending = asyncio.create_task(_end(opened, call))
    _endings.add(ending)  # the loop itself keeps no task alive
    ending.add_done_callback(_endings.discard)
    return call


async def _end(opened: Span, call: grpc.aio.Call) -> None:
    """Waits for the end of a call and ends its span: an error, unless the call was answered OK."""
    try:
        code = await call.code()
        opened.set_attribute("rpc.grpc.status_code", code.value[0])
        if code is not grpc.StatusCode.OK:
            opened.set_status(StatusCode.ERROR, code.name)
    except asyncio.CancelledError:
        opened.set_status(StatusCode.ERROR, "the loop ended before the call")
        raise
    finally:
        opened.end()


def _call_attributes(method: str) -> dict[str, str]:
    service, _, name = method.lstrip("/").rpartition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
