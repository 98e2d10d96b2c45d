"""Logs as one JSON object a line, with the ids of the current trace and span.

Each text in a line is cut, since callers write some of them: a log that grows with what they send
fills disks and stalls whoever reads it.
"""

import json
import logging
import math
import sys
from datetime import UTC, datetime
from typing import Any

from opentelemetry import trace

# They log every missing kind of device at INFO and every compilation at DEBUG.
VERBOSE_LOGGERS = ("jax", "jax._src.xla_bridge")
MAX_TEXT_LENGTH = 2000  # characters of a message or field
MAX_EXCEPTION_LENGTH = 20_000  # characters of a traceback, whose end says most
# Attributes of every record; all others come from `extra`.
_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
}


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def __init__(self, service_name: str) -> None:
        """Creates the formatter of a service such as "muse.base"."""
        super().__init__()
        self._service_name = service_name

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line; fields of `extra` are added to the standard ones."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service_name,
            "logger": record.name,
            "message": bounded(record.getMessage()),
        }
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["trace_id"] = trace.format_trace_id(span.trace_id)
            line["span_id"] = trace.format_span_id(span.span_id)
        for name, value in vars(record).items():
            if name not in _STANDARD_ATTRIBUTES:
                line.setdefault(name, bounded(value))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[-MAX_EXCEPTION_LENGTH:]
        return json.dumps(line)


def bounded(value: Any) -> Any:
    """Returns a field of a log line as JSON takes it, with every text in it cut."""
    if isinstance(value, dict):
        return {bounded(str(key)): bounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [bounded(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such number
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(text) <= MAX_TEXT_LENGTH else text[:MAX_TEXT_LENGTH] + "..."


def configure_logs(service_name: str, level: str = "INFO") -> None:
    """Sends all logs of the process to standard error, as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service_name))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
