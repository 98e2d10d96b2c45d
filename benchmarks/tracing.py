"""What tracing costs: the same requests by two stacks, of which one exports every span.

`python -m benchmarks.tracing` (`--requests 2` to see that it runs). Two stacks are up at once, and
a blocking client asks them in turns, the order changing from pair to pair, so that what slows the
machine down slows both. The receiver is a real one, over gRPC, in this process.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import grpc
from cyclopts import App
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from benchmarks.measuring import Spread, conditions
from services.orchestrator.client import MuseClient
from services.orchestrator.local import local_stack

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


@contextmanager
def running(checkpoints: Path, environment: Mapping[str, str]) -> Iterator[MuseClient]:
    """Runs a stack whose servers have an environment of their own; yields a client of it."""
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile("w"))
        with patch.dict(os.environ, environment):  # the servers inherit it as they start
            running = stack.enter_context(local_stack(checkpoints, log))
        yield stack.enter_context(MuseClient(running.address))


def pairs(
    without: MuseClient, traced: MuseClient, prompt: str, requests: int
) -> list[tuple[float, float]]:
    """Asks both for the same pictures in turns, the first ones uncounted.

    Returns:
        Seconds without and with tracing, of each pair.
    """
    found = []
    for index in range(WARM_UPS + requests):
        seconds = {}
        for client in (without, traced) if index % 2 else (traced, without):
            begun = time.perf_counter()
            client.generate(prompt, seed=index)
            seconds[client] = time.perf_counter() - begun
        found.append((seconds[without], seconds[traced]))
    return found[WARM_UPS:]


@app.default
def main(
    *,
    requests: int = 40,
    checkpoints: Path = Path("checkpoints/demo"),
    prompt: str = "a 3D picture of an owl on a blue background",
) -> None:
    """Prints a request's time without and with tracing, and the ratio of each pair.

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
        on = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        without, traced = (stack.enter_context(running(checkpoints, each)) for each in (off, on))
        before = receiver.spans  # of the start, when stages are asked whether they are there
        found = pairs(without, traced, prompt, requests)
        received = receiver.spans - before
    print(f"{checkpoints}, one request at a time; ms, median (min-max) of {requests} pairs")
    for name, seconds in zip(("without", "traced"), zip(*found, strict=True), strict=True):
        print(f"{name:8}{Spread([1e3 * each for each in seconds]):.1f}")
    ratio = Spread([traced_s / without_s for without_s, traced_s in found])
    print(f"tracing takes {ratio:.4f} times as long (target <= {1 + TARGET:g})")
    print(f"{received / (WARM_UPS + requests):.1f} spans a request, those of status calls included")


if __name__ == "__main__":
    app()
