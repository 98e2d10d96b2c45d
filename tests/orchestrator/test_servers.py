"""The orchestrator's process: a taken port is an error, and SIGTERM ends it."""

import signal
import socket
import subprocess
import sys


def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [sys.executable, "-m", "services.orchestrator"]
        ended = subprocess.run(
            [*command, f"--port={taken.getsockname()[1]}"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 1
    assert "is another server there? Name another --port" in ended.stderr.splitlines()[-1]


def test_an_orchestrator_that_waits_for_its_stages_stops_at_sigterm() -> None:
    dead = "127.0.0.1:1"
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
