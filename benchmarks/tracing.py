"""What tracing costs: the same requests by two stacks, of which one exports every span.

`python -m benchmarks.tracing` (`--requests 2` to see that it runs). Two stacks are up at once, and
a blocking client asks them in turns, the order changing from pair to pair, so that what slows the
machine down slows both. The receiver is a real one, over gRPC, in this process. The time that the
servers have the CPUs is counted too: it varies less than the time to an answer.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import grpc
from cyclopts import App
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from benchmarks.measuring import Spread, conditions
from services.orchestrator.client import MuseClient
from services.orchestrator.local import Runner, local_stack

TARGET = 0.01  # of a request's time
WARM_UPS = 3

app = App(help=__doc__)


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans and counts them."""

    def __init__(self) -> None:
        """Has none."""
        self.spans = 0

    def Export(self, request: Any, context: Any) -> Any:
        """Takes some."""
        self.spans += sum(
            len(scope.spans)
            for resource in request.resource_spans
            for scope in resource.scope_spans
        )
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def receiving() -> Iterator[tuple[Receiver, str]]:
    """Runs a receiver; yields it and its address as OTEL_EXPORTER_OTLP_ENDPOINT wants it."""
    receiver, server = Receiver(), grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield receiver, f"http://127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


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
            pod.placed.deployment.name: 1e3 * cpu_s(pod.pid)
            for pod in self.runner.pods
            if pod.pid is not None
        }


def cpu_s(pid: int) -> float:
    """Returns the seconds of CPU that a process has taken, those of the kernel for it included."""
    user, kernel = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(kernel)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(checkpoints: Path, environment: Mapping[str, str]) -> Iterator[Stack]:
    """Runs a stack whose servers have an environment of their own."""
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile("w"))
        with patch.dict(os.environ, environment):  # the servers inherit it as they start
            started = stack.enter_context(local_stack(checkpoints, log))
        yield Stack(stack.enter_context(MuseClient(started.address)), started)


def pairs(
    without: MuseClient, traced: MuseClient, prompt: str, seeds: range
) -> list[tuple[float, float]]:
    """Asks both for the same pictures in turns.

    Returns:
        Seconds without and with tracing, of each pair.
    """
    found = []
    for seed in seeds:
        seconds = {}
        for client in (without, traced) if seed % 2 else (traced, without):
            begun = time.perf_counter()
            client.generate(prompt, seed=seed)
            seconds[client] = time.perf_counter() - begun
        found.append((seconds[without], seconds[traced]))
    return found


@app.default
def main(
    *,
    requests: int = 40,
    checkpoints: Path = Path("checkpoints/demo"),
    prompt: str = "a 3D picture of an owl on a blue background",
) -> None:
    """Prints a request's time without and with tracing, the ratio of each pair, and CPU time.

    Parameters
    ----------
    requests
        Pairs that count; a few go before.
    checkpoints
        What both stacks serve.
    prompt
        Of every request.
    """
    print(conditions("jax", "grpcio", "opentelemetry-sdk"))
    off = {"OTEL_TRACES_EXPORTER": "none"}
    with receiving() as (receiver, endpoint), ExitStack() as stack:
        on = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint}
        both = [stack.enter_context(running(checkpoints, each)) for each in (off, on)]
        without, traced = (each.client for each in both)
        pairs(without, traced, prompt, range(WARM_UPS))
        spans, taken = receiver.spans, [each.cpu_ms() for each in both]
        found = pairs(without, traced, prompt, range(WARM_UPS, WARM_UPS + requests))
        spans = receiver.spans - spans
        cpu = [
            {name: (ms - before[name]) / requests for name, ms in each.cpu_ms().items()}
            for each, before in zip(both, taken, strict=True)
        ]
    print(f"{checkpoints}, one request at a time; ms, median (min-max) of {requests} pairs")
    for name, seconds in zip(("without", "traced"), zip(*found, strict=True), strict=True):
        print(f"{name:8}{Spread([1e3 * each for each in seconds]):.1f}")
    ratio = Spread([traced_s / without_s for without_s, traced_s in found])
    print(f"tracing takes {ratio:.4f} times as long (target <= {1 + TARGET:g})")
    print(f"{spans / requests:.1f} spans a request")
    print("CPU ms a request: server, without, traced, difference")
    for name, ms in (*cpu[0].items(), ("all", sum(cpu[0].values()))):
        other_ms = cpu[1].get(name, sum(cpu[1].values()))
        print(f"{name:13}{ms:8.1f}{other_ms:8.1f}{other_ms - ms:+8.1f}")


if __name__ == "__main__":
    app()
