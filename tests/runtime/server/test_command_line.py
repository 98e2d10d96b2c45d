"""A server's command line, each in a process of its own."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("orchestrator", "--port", "99999"), "error: port: expected 0 to 65535, got 99999"),
        (
            ("superres", "--checkpoints", "nowhere", "--max-batch-size", "0"),
            "error: max_batch_size: expected at least 1, got 0",
        ),
        (
            ("base", "--checkpoints", "nowhere", "--grace-s", "nan"),
            "error: grace_s: expected at least 0, got nan",
        ),
    ],
)
def test_an_invalid_setting_prints_one_line(arguments: tuple[str, ...], said: str) -> None:
    stage, *flags = arguments
    ended = subprocess.run(
        [sys.executable, "-m", f"services.{stage}", *flags],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr.strip()) == (1, said)
