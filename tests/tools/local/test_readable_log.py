"""Logs of `muse up`: for people in a terminal, JSON elsewhere."""

import io
import json
import logging
import sys

from services.runtime.observability.logs import JsonFormatter
from tools.local.manifest import local_overlay
from tools.local.readable_log import readable
from tools.local.runner import Runner


def json_line(message: str, level: int = logging.INFO, **fields: object) -> str:
    record = logging.LogRecord("services.test", level, "", 0, message, None, None)
    vars(record).update(fields)
    return JsonFormatter("muse.base").format(record) + "\n"


def test_a_line_has_time_process_message_and_fields() -> None:
    shown = readable(
        json_line(
            "a picture is done", wall_s=1.23456, seed=7, caller="", new=["a:1"], stages={"base": 1}
        )
    )
    time, rest = shown.split("  ", 1)
    assert len(time) == len("12:00:00")
    assert rest == 'base  a picture is done  wall_s=1.235  seed=7  new=["a:1"]\n'
    assert "  WARNING:  slow\n" in readable(json_line("slow", logging.WARNING))


def test_a_traceback_is_lines_below() -> None:
    try:
        raise RuntimeError("it\nfails")
    except RuntimeError:
        line = json_line("a call failed", logging.ERROR, exc_info=sys.exc_info())
    first, *below = readable(line).splitlines()
    assert first.endswith("ERROR:  a call failed")
    assert below[0] == "    Traceback (most recent call last):"
    assert below[-2:] == ["    RuntimeError: it", "    fails"]


def test_nothing_that_callers_write_moves_the_terminal() -> None:
    caller = "fox\x1b[2J\r\u202eevil\x00\udc80"
    for line in (json_line("ended", caller=caller), f"plain {caller}\n"):
        shown = readable(line)
        assert all(each.isprintable() for each in shown.removesuffix("\n"))
        assert "\\x1b[2J" in shown


def test_what_is_no_line_of_a_server_stays() -> None:
    for line in ("Killed\n", "{}\n", "[1]\n", '{"time": 7}\n', '"text"\n', "\n"):
        assert readable(line) == line


def test_only_a_terminal_gets_lines_for_people() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for log, is_json in ((io.StringIO(), True), (Terminal(), False)):
        runner = Runner(local_overlay(), (), log)
        runner._write(json_line("serving"))
        written = log.getvalue()
        assert written.endswith("\n")
        assert written.startswith("{") is is_json
        if is_json:
            assert json.loads(written)["message"] == "serving"
