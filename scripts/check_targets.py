"""Installs the images' targets as the Containerfile does, and starts their commands.

`python scripts/check_targets.py` runs scripts/install_target.sh for each target in a clean folder,
all at once, then the commands of the Containerfile with nothing else on the path, on the demo
checkpoint: the orchestrator is ready once all four stages are, the gateway once the orchestrator
is, and every server must end by itself on SIGTERM.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.stages import GATEWAY, ORCHESTRATOR, STAGES

ROOT = Path(__file__).parents[1]
READY_S, STOP_S = 600.0, 60.0


def commands(containerfile: str) -> dict[str, list[str]]:
    """Returns the command of every target that has one."""
    found, target = {}, ""
    for line in containerfile.splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            target = rest.rpartition(" AS ")[2]
        if word == "CMD":
            found[target] = json.loads(rest)
    return found


def install(target: str, folder: Path) -> None:
    """Installs a target for the CPU; bytecode at once only where four servers would make it."""
    start_s = time.monotonic()
    script = ["sh", str(ROOT / "scripts/install_target.sh"), target, "cpu", str(folder)]
    variables = {**os.environ, "PYTHON": sys.executable, "PIP_COMPILE": str(int(target == "stage"))}
    subprocess.run(script, check=True, env=variables)
    size = sum(file.lstat().st_size for file in folder.rglob("*"))
    took_s = time.monotonic() - start_s
    print(f"{target}: installed in {took_s:.0f} s, {size / 1e6:.0f} MB", flush=True)


def has(folder: Path, package: str) -> bool:
    """Returns whether an environment can import a package."""
    look = f"import importlib.util as u, sys; sys.exit(u.find_spec({package!r}) is None)"
    return subprocess.run([folder / "bin/python", "-c", look], check=False).returncode == 0


def free_port() -> int:
    """Returns a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(folder: Path, work: Path, **settings: str) -> dict[str, str]:
    """Returns what the image sets, and the settings of a server."""
    return {
        "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
        "HOME": str(work),
        **{f"MUSE_{name.upper()}": value for name, value in settings.items()},
    }


@contextmanager
def running(
    command: list[str], variables: Mapping[str, str], work: Path
) -> Iterator[subprocess.Popen[str]]:
    """Runs a server inside the block; it must end by itself, with status 0, after SIGTERM."""
    process = subprocess.Popen(command, env=dict(variables), cwd=work, text=True)
    try:
        yield process
        process.terminate()
        status = process.wait(STOP_S)
        if status:
            raise SystemExit(f"{command}: ended with status {status}, expected 0")
    finally:
        process.kill()


def grpc_ready(port: int) -> bool:
    """Returns whether a gRPC server says that it is ready."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service="readiness"), timeout=5)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def http_ready(port: int) -> bool:
    """Returns whether the gateway says that it is ready."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return True
    except OSError:  # among them the status 503
        return False


def wait_until_ready(
    process: subprocess.Popen[str], port: int, is_ready: Callable[[int], bool]
) -> None:
    """Waits for a server to say that it is ready."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r}: died with status {process.returncode}")
        if is_ready(port):
            return
        time.sleep(0.5)
    raise SystemExit(f"{process.args!r}: was not ready after {READY_S:.0f} s")


def main() -> None:
    """Checks every target."""
    of = commands((ROOT / "Containerfile").read_text())
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        targets = (GATEWAY, ORCHESTRATOR, "stage", "training")
        folders = {target: work / target for target in targets}
        with ThreadPoolExecutor() as pool:
            list(pool.map(install, folders, folders.values()))  # raises what one of them raised
        for target in (GATEWAY, ORCHESTRATOR):
            for package in ("jax", "flax", "safetensors", "pip"):
                if has(folders[target], package):
                    raise SystemExit(f"{target}: has {package}, which it does not need")

        training = environment(folders["training"], work)
        subprocess.run(of["training"], check=True, env=training, cwd=work, capture_output=True)
        print("training: its command runs", flush=True)
        ports = {name: str(free_port()) for name in (GATEWAY, ORCHESTRATOR, *STAGES)}
        addresses = {name: f"127.0.0.1:{ports[name]}" for name in STAGES}
        checkpoints = str(ROOT / "checkpoints/demo")
        orchestrator = environment(
            folders["orchestrator"], work, port=ports[ORCHESTRATOR], **addresses
        )
        gateway = environment(
            folders[GATEWAY],
            work,
            port=ports[GATEWAY],
            orchestrator=f"127.0.0.1:{ports[ORCHESTRATOR]}",
        )
        with ExitStack() as servers:
            for stage in STAGES.values():
                variables = environment(
                    folders["stage"], work, port=ports[stage.name], checkpoints=checkpoints
                )
                servers.enter_context(running(of[stage.deployment], variables, work))
            front = servers.enter_context(running(of[ORCHESTRATOR], orchestrator, work))
            wait_until_ready(front, int(ports[ORCHESTRATOR]), grpc_ready)
            print("orchestrator: ready, and so are the four stages", flush=True)
            http = servers.enter_context(running(of[GATEWAY], gateway, work))
            wait_until_ready(http, int(ports[GATEWAY]), http_ready)
            print("gateway: ready", flush=True)
        print("all servers: ended by themselves", flush=True)


if __name__ == "__main__":
    main()
