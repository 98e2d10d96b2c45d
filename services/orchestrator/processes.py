"""The five servers as five processes."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

STOP_S = 45.0  # a server drains for at most 30 s
NAMES = ("orchestrator", "text_encoder", "tokenizer", "base", "superres")


@contextmanager
def servers(
    checkpoints: Path, base_port: int, log: Path
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Starts the servers on base_port to base_port + 4 and stops them in the end.

    Raises:
        FileNotFoundError: there is no folder of checkpoints.
        RuntimeError: one died before all were serving; names it and its last words.
    """
    if not checkpoints.is_dir():
        raise FileNotFoundError(
            f"no checkpoints in {checkpoints}: expected a folder that training has filled; "
            "name it with --checkpoints"
        )
    log.parent.mkdir(parents=True, exist_ok=True)
    running: list[subprocess.Popen[bytes]] = []
    with log.open("wb") as sink:
        try:
            for offset, name in enumerate(NAMES):
                if name == "orchestrator":
                    flags = [
                        f"--{stage.replace('_', '-')}=127.0.0.1:{base_port + index}"
                        for index, stage in enumerate(NAMES)
                        if index
                    ]
                else:
                    flags = [f"--checkpoints={checkpoints}"]
                command = [sys.executable, "-m", f"services.{name}", f"--port={base_port + offset}"]
                running.append(subprocess.Popen([*command, *flags], stdout=sink, stderr=sink))
            while not serving(f"127.0.0.1:{base_port}"):
                check_alive(running, log)
                time.sleep(0.25)
            yield running
        finally:
            for process in running:
                process.terminate()
            for process in running:
                try:
                    process.wait(timeout=STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def check_alive(running: list[subprocess.Popen[bytes]], log: Path) -> None:
    """Checks that every server runs.

    Raises:
        RuntimeError: one died; names it and its last words.
    """
    for name, process in zip(NAMES, running, strict=True):
        if process.poll() is not None:
            words = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"{name} died with {process.returncode}: {''.join(words)}")


def serving(address: str) -> bool:
    """Returns whether a server says SERVING."""
    with grpc.insecure_channel(address) as channel:
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.RpcError:
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING
