"""Spans that were begun and not ended."""

from typing import Any

from opentelemetry.sdk.trace import SpanProcessor


class OpenSpans(SpanProcessor):
    """Knows the spans that were begun and not ended, and counts those that ended."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.ended = 0

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.open.add(span.context.span_id)

    def on_end(self, span: Any) -> None:
        self.open.discard(span.context.span_id)  # those that are recorded are over from the start
        self.ended += 1
