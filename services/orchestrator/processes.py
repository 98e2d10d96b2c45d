"""The five servers as five processes of this machine, with one log."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from json import JSONDecodeError, loads
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.masked.settings import parse_mesh
from services.runtime.precision import Weights

NAMES = ("orchestrator", "text_encoder", "tokenizer", "base", "superres")
PLACES = ("text_encoder", "tokenizer/low", "tokenizer/high", "base", "superres")  # of checkpoints
STOP_S = 45.0  # a server drains for at most 30 s
PAUSE_S = 0.1

Flags = Mapping[str, Sequence[str]]
"""Flags of the stages, by the stage's name."""

NO_FLAGS: Flags = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Server:
    """One server's process.

    Attributes:
        name: One of NAMES.
        process: Its process.
        last_words: The last lines it logged.
        listener: Copies its log.
    """

    name: str
    process: subprocess.Popen[str]
    last_words: deque[str]
    listener: threading.Thread

    def check_alive(self) -> None:
        """Checks that it runs.

        Raises:
            RuntimeError: it died; names it and its last words.
        """
        if self.process.poll() is not None:
            self.listener.join(timeout=1)
            last = self.last_words[-1] if self.last_words else "it said nothing"
            raise RuntimeError(f"{self.name} died with {self.process.returncode}: {_message(last)}")


def consecutive_ports(base_port: int) -> dict[str, int]:
    """Returns base_port for the orchestrator and the next four for the stages.

    Raises:
        ValueError: they are no ports.
    """
    last = 65535 - len(NAMES) + 1
    if not 1 <= base_port <= last:
        raise ValueError(f"base_port: expected 1 to {last}, got {base_port}")
    return {name: base_port + offset for offset, name in enumerate(NAMES)}


def free_ports() -> dict[str, int]:
    """Returns a port that is free now for every server."""
    probes = [socket.socket() for _ in NAMES]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return {name: probe.getsockname()[1] for name, probe in zip(NAMES, probes, strict=True)}
    finally:
        for probe in probes:
            probe.close()


def stage_flags(*, mesh: str | None = None, weights: Weights | None = None) -> Flags:
    """Returns the flags of every stage that has them; what is None is left to the stages.

    Args:
        mesh: Devices that base and superres are spread over, such as "model=4".
        weights: How text encoder, base and superres keep their matrices.

    Raises:
        ValueError: the mesh is not one.
    """
    flags: dict[str, list[str]] = {}
    if weights is not None:
        for name in ("text_encoder", "base", "superres"):
            flags.setdefault(name, []).append(f"--weights={weights}")
    if mesh is not None:
        parse_mesh(mesh)
        for name in ("base", "superres"):
            flags.setdefault(name, []).append(f"--mesh={mesh}")
    return flags


@contextmanager
def servers(
    checkpoints: Path, ports: Mapping[str, int], log: TextIO, flags: Flags = NO_FLAGS
) -> Iterator[list[Server]]:
    """Starts the servers, and stops them in the end: the orchestrator first, so that it drains.

    Args:
        checkpoints: Folder with the checkpoint of every stage.
        ports: Of each server, by name.
        log: Where all of them log to, line by line.
        flags: Of each stage besides, by name.

    Yields:
        The servers, all of them serving.

    Raises:
        FileNotFoundError: a stage has no checkpoint.
        RuntimeError: one died before all were serving; names it and its last words.
    """
    check_checkpoints(checkpoints)
    running: list[Server] = []
    writing = threading.Lock()
    try:
        for name in NAMES:
            running.append(_start(_command(name, checkpoints, ports, flags), name, log, writing))
        while not serving(f"127.0.0.1:{ports['orchestrator']}"):
            check_alive(running)
            time.sleep(PAUSE_S)
        yield running
    finally:
        _stop(running)


def check_checkpoints(folder: Path) -> None:
    """Checks that every stage has a checkpoint; what is in it is the servers' to check.

    Raises:
        FileNotFoundError: one has none; names all that are missing.
    """
    missing = [place for place in PLACES if not (folder / place / "config.json").is_file()]
    if missing:
        what = "checkpoints" if len(missing) == len(PLACES) else f"checkpoint of {missing}"
        raise FileNotFoundError(
            f"no {what} in {folder}: expected a folder that training has filled; "
            "name it with --checkpoints"
        )


def check_alive(running: list[Server]) -> None:
    """Checks that every server runs.

    Raises:
        RuntimeError: one died; names it and its last words.
    """
    for server in running:
        server.check_alive()


def serving(address: str) -> bool:
    """Returns whether a server says SERVING."""
    with grpc.insecure_channel(address) as channel:
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.RpcError:
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING


def compilation_cache() -> Path:
    """Returns the user's folder of compiled programs, by which a second start is fast."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "muse" / "compiled"


def _command(name: str, checkpoints: Path, ports: Mapping[str, int], flags: Flags) -> list[str]:
    if name == "orchestrator":
        own = [
            f"--{stage.replace('_', '-')}=127.0.0.1:{ports[stage]}"
            for stage in NAMES
            if stage != name
        ]
    else:
        own = [f"--checkpoints={checkpoints}", *flags.get(name, ())]
    return [sys.executable, "-m", f"services.{name}", f"--port={ports[name]}", *own]


def _start(command: list[str], name: str, log: TextIO, writing: threading.Lock) -> Server:
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={"MUSE_COMPILATION_CACHE": str(compilation_cache()), **os.environ},
        start_new_session=True,  # Ctrl-C reaches this process alone, which then stops them in order
    )
    last_words: deque[str] = deque(maxlen=20)

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                last_words.append(line.strip())
            with writing:
                log.write(line)
                log.flush()

    listener = threading.Thread(target=listen, name=f"log of {name}", daemon=True)
    listener.start()
    return Server(name=name, process=process, last_words=last_words, listener=listener)


def _stop(running: list[Server]) -> None:
    """Ends every server; one more Ctrl-C ends them at once."""
    try:
        for group in (running[:1], running[1:]):
            for server in group:
                server.process.terminate()
            for server in group:
                try:
                    server.process.wait(timeout=STOP_S)
                except subprocess.TimeoutExpired:
                    server.process.kill()
    finally:
        for server in running:
            if server.process.poll() is None:
                server.process.kill()
            server.process.wait()
            server.listener.join(timeout=1)


def _message(line: str) -> str:
    """Returns what a line of log says, without its JSON."""
    try:
        return str(loads(line)["message"])
    except (JSONDecodeError, KeyError, TypeError):
        return line
