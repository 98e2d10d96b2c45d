"""Logs as one JSON object a line, with the trace they belong to."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from opentelemetry import trace

# They tell at INFO of each kind of device that is not there, and at DEBUG of every compilation.
TALKATIVE = ("jax", "jax._src.xla_bridge")
# What every record has; the rest came by `extra`.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON."""

    def __init__(self, service_name: str) -> None:
        """Remembers whose logs they are.

        Args:
            service_name: Such as "muse.base".
        """
        super().__init__()
        self._service_name = service_name

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line; `extra` fields stand beside the usual ones."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service_name,
            "logger": record.name,
            "message": record.getMessage(),
        }
        here = trace.get_current_span().get_span_context()
        if here.is_valid:
            line["trace_id"] = trace.format_trace_id(here.trace_id)
            line["span_id"] = trace.format_span_id(here.span_id)
        for name, value in vars(record).items():
            if name not in _USUAL:
                line.setdefault(name, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logs(service_name: str, level: str = "INFO") -> None:
    """Sends all logs of the process to standard error, as JSON.

    Args:
        service_name: Such as "muse.base".
        level: The least severe level that is written.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service_name))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
