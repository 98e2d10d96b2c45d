"""Lines of log stay short, whatever they are about."""

import json
import logging
import sys
from typing import Any

import pytest

from services.runtime.observability.logs import JsonFormatter

LONG = "x" * 8 * 2**20


def line_of(message: str, **fields: Any) -> str:
    record = logging.makeLogRecord({"msg": message, "levelname": "INFO", **fields})
    return JsonFormatter("muse.test").format(record)


@pytest.mark.parametrize("value", [LONG, [LONG], {"a": {"b": LONG}}, {LONG: 1}, LONG.encode()])
def test_a_field_that_a_caller_made_long_is_cut(value: Any) -> None:
    line = line_of("a request has ended", caller=value)
    assert len(line) < 5000
    assert "xxx..." in line


def test_a_long_message_is_cut_and_a_short_one_is_not() -> None:
    assert len(line_of(LONG)) < 5000
    fields = {"count": 3, "share": 0.5, "none": None, "which": [1, "b"]}
    line = json.loads(line_of("short", **fields))
    assert line["message"] == "short"
    assert {name: line[name] for name in fields} == fields


def test_of_a_long_exception_the_end_is_kept() -> None:
    try:
        raise ValueError(LONG + " the reason")
    except ValueError:
        line = line_of("failed", exc_info=sys.exc_info())
    assert len(line) < 50_000
    assert json.loads(line)["exception"].endswith(" the reason")
