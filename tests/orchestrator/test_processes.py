"""Tests for the processes around the orchestrator: a missing checkpoint, a stop while starting."""

import signal
import socket
import subprocess
import sys
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_generating_without_checkpoints_is_one_line_and_a_failure(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from services.orchestrator.cli import main; main()"]
    asked = [*command, "generate", "a fox", "--checkpoints", str(tmp_path / "none")]
    ended = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.startswith("muse: no checkpoints in ")
    assert ended.stderr.count("\n") == 1


def test_an_orchestrator_that_waits_for_its_stages_stops_when_told() -> None:
    dead = f"127.0.0.1:{free_port()}"
    stages = ("text-encoder", "base", "superres", "tokenizer")
    flags = [f"--{stage}={dead}" for stage in stages]
    process = subprocess.Popen(
        [sys.executable, "-m", "services.orchestrator", "--port=0", *flags],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert '"loading"' in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    last = process.communicate(timeout=30)[1].splitlines()[-1]
    assert process.returncode == 0
    assert '"stopped"' in last
