"""What an export costs: the same requests by two stacks, of which one exports.

Two stacks are up at once, and a blocking client asks them in turns, the order changing from pair to
pair, so that what slows the machine down slows both. The time that the servers have the CPUs is
counted too: it varies less than the time to an answer.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import grpc
from muse_client import MuseClient

from benchmarks.measuring import Spread
from services.stages import ORCHESTRATOR, STAGES
from tools.local import Runner, local_stack

TARGET = 0.01  # of a request's time
WARM_UPS = 3
# The manifests have an endpoint for Prometheus.
DEPLOYMENTS = (ORCHESTRATOR, *(stage.deployment for stage in STAGES.values()))
NO_ENDPOINT = dict.fromkeys(DEPLOYMENTS, ("--metrics-port=none",))


@contextmanager
def listening(server: grpc.Server) -> Iterator[str]:
    """Runs a receiver; yields its address as OTEL_EXPORTER_OTLP_..._ENDPOINT wants it."""
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def one_thread() -> grpc.Server:
    """Returns a server that answers one call at a time."""
    return grpc.server(ThreadPoolExecutor(1))


@dataclass(frozen=True)
class Stack:
    """Five servers.

    Attributes:
        client: Of their orchestrator.
        runner: Of all of them.
    """

    client: MuseClient
    runner: Runner

    def cpu_ms(self) -> dict[str, float]:
        """Returns the CPU time that each server has taken since it started, by its name."""
        return {
            pod.local.deployment.name: 1e3 * cpu_s(pod.pid)
            for pod in self.runner.pods
            if pod.pid is not None
        }


def cpu_s(pid: int) -> float:
    """Returns the seconds of CPU that a process has taken, those of the kernel for it included."""
    user, kernel = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(kernel)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(
    checkpoints: Path, environment: Mapping[str, str], *, endpoint: bool
) -> Iterator[Stack]:
    """Runs a stack whose servers have an environment of their own.

    Args:
        checkpoints: What it serves.
        environment: Variables that its servers have besides.
        endpoint: Whether each server has the endpoint that Prometheus scrapes.
    """
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile("w"))
        flags = {} if endpoint else NO_ENDPOINT
        with patch.dict(os.environ, environment):  # the servers inherit it as they start
            started = stack.enter_context(local_stack(checkpoints, log, flags=flags))
        yield Stack(stack.enter_context(MuseClient(started.address)), started)


def pairs(
    without: MuseClient, exporting: MuseClient, prompt: str, seeds: range
) -> list[tuple[float, float]]:
    """Asks both for the same pictures in turns.

    Returns:
        Seconds without and with the export, of each pair.
    """
    found = []
    for seed in seeds:
        seconds = {}
        for client in (without, exporting) if seed % 2 else (exporting, without):
            begun = time.perf_counter()
            client.generate(prompt, seed=seed)
            seconds[client] = time.perf_counter() - begun
        found.append((seconds[without], seconds[exporting]))
    return found


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What two stacks took for the same requests.

    Attributes:
        seconds: Without and with the export, of each pair.
        cpu_ms: CPU time a request of each server by its name, without and with.
    """

    seconds: Sequence[tuple[float, float]]
    cpu_ms: tuple[Mapping[str, float], Mapping[str, float]]

    def print(self, checkpoints: Path, exporting: str) -> None:
        """Prints a request's time without and with, the ratio of each pair, and CPU time.

        Args:
            checkpoints: What was served.
            exporting: What the stack that exports is called, such as "traced".
        """
        count, (without, other) = len(self.seconds), self.cpu_ms
        print(f"{checkpoints}, one request at a time; ms, median (min-max) of {count} pairs")
        names = ("without", exporting)
        for name, seconds in zip(names, zip(*self.seconds, strict=True), strict=True):
            print(f"{name:10}{Spread([1e3 * each for each in seconds]):.1f}")
        ratio = Spread([other_s / without_s for without_s, other_s in self.seconds])
        print(f"{exporting} takes {ratio:.4f} times as long (target <= {1 + TARGET:g})")
        print(f"CPU ms a request: server, without, {exporting}, difference")
        for name, ms in (*without.items(), ("all", sum(without.values()))):
            other_ms = other.get(name, sum(other.values()))
            print(f"{name:13}{ms:8.1f}{other_ms:8.1f}{other_ms - ms:+8.1f}")


def compare(without: Stack, exporting: Stack, prompt: str, seeds: range) -> Comparison:
    """Asks both for the same pictures in turns, and counts what their servers took for it."""
    both = (without, exporting)
    before = [each.cpu_ms() for each in both]
    seconds = pairs(without.client, exporting.client, prompt, seeds)
    first, second = (
        {name: (ms - taken[name]) / len(seconds) for name, ms in each.cpu_ms().items()}
        for each, taken in zip(both, before, strict=True)
    )
    return Comparison(seconds=seconds, cpu_ms=(first, second))


def warm_up(without: Stack, exporting: Stack, prompt: str) -> None:
    """Asks both for a few pictures that do not count."""
    pairs(without.client, exporting.client, prompt, range(WARM_UPS))
