"""Durations, deadlines and retries go by the monotonic clock, which does not jump."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
WALL = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow")}
# What the time of day is for: stamps, and dates that people set.
BY_DATE = {
    "services/runtime/observability/completed_spans.py",  # start and end of spans
    "services/gateway/openai/answers.py",  # when a picture was made
    "services/orchestrator/replicas/replica_set.py",  # since when no replica serves
    "services/orchestrator/callers/credentials.py",  # whether a key has expired
    "services/runtime/server/certificates.py",  # whether a certificate is valid
    "tools/local/certificates.py",  # from when until when a certificate is
}


def test_only_stamps_and_dates_go_by_the_wall_clock() -> None:
    found = set()
    for package in ("services", "tools", "client"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if (
                    isinstance(node, ast.Attribute)
                    and isinstance(node.value, ast.Name)
                    and (node.value.id, node.attr) in WALL
                ):
                    found.add(str(file.relative_to(ROOT)))
    assert found == BY_DATE
