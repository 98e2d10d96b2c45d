"""What HTTP adds to a request: the gateway's own time, its first event, its memory an open stream.

`python -m benchmarks.gateway` (`--requests 3 --streams 3` to see that it runs). A stand-in
orchestrator answers at once with one picture of the demo's size, so that nothing but the way is
measured: by the gRPC client directly, and through a gateway in a process of its own. The stand-in
never ends a request whose prompt says so, for the streams that wait.
"""

import asyncio
import contextlib
import io
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator

import grpc
import httpx2
import numpy as np
import psutil
from cyclopts import App
from muse.common.v1 import stage_pb2
from muse.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from muse_client import AsyncMuseClient
from PIL import Image

from benchmarks.measuring import Spread, conditions

TARGET_MS, TARGET_FIRST_MS, TARGET_MB = 8.0, 30.0, 100.0
SIDE_PX, ENDLESS, STAGES = 128, "wait", ("text_encoder", "base", "superres", "tokenizer")
WARM_UPS = 5

app = App(help=__doc__)


class StandIn(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    """Answers with the same picture at once, or never."""

    def __init__(self) -> None:
        """Draws the picture."""
        noise = np.random.default_rng(0).integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "PNG")
        self._png = file.getvalue()

    async def GetStatus(
        self, request: orchestrator_pb2.GetStatusRequest, context: object
    ) -> orchestrator_pb2.GetStatusResponse:
        """Says that there are no stages."""
        return orchestrator_pb2.GetStatusResponse()

    async def Generate(
        self, request: orchestrator_pb2.GenerateRequest, context: object
    ) -> AsyncIterator[orchestrator_pb2.GenerateResponse]:
        """Sends what an orchestrator sends, without its work."""
        answer = orchestrator_pb2.GenerateResponse
        yield answer(accepted=orchestrator_pb2.Accepted(seed=request.seed, count=1))
        if request.prompt == ENDLESS:
            await asyncio.Event().wait()
        timings = [stage_pb2.StageTiming(stage=each, compute_s=0.001) for each in STAGES]
        yield answer(
            image=orchestrator_pb2.GeneratedImage(
                width_px=SIDE_PX, height_px=SIDE_PX, png=self._png, timings=timings
            )
        )
        yield answer(done=orchestrator_pb2.Done())


@contextlib.contextmanager
def running_gateway(orchestrator: int) -> Iterator[tuple[int, psutil.Process]]:
    """Yields the port of a gateway in a process of its own, and that process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "services.gateway", f"--port={port}"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, f"--orchestrator=127.0.0.1:{orchestrator}"],
            stdout=log,
            stderr=log,
            env={**os.environ, "OTEL_SDK_DISABLED": "true"},
        )
        try:
            _wait_for(port, process)
            yield port, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(f"http://127.0.0.1:{port}/healthz").status_code == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the gateway ended with status {process.returncode} at its start")


async def first_event_ms(client: httpx2.AsyncClient) -> float:
    """Returns how long the first event of a stream took; closes the stream."""
    begun = time.perf_counter()
    body = {"prompt": ENDLESS, "seed": 1, "stream": True}
    async with client.stream("POST", "/v1/muse/generate", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("event: accepted"):
                return 1e3 * (time.perf_counter() - begun)
    raise RuntimeError("the stream ended before its first event")


async def latencies(
    port: int, orchestrator: int, requests: int
) -> tuple[Spread, Spread, Spread, Spread]:
    """Sends requests by turns: by gRPC, through the gateway as JSON, and as a stream.

    Returns:
        Milliseconds by gRPC and through the gateway, what a pair of them differs by, and until the
        first event of a stream.
    """
    direct, through, first = [], [], []
    async with (
        AsyncMuseClient(f"127.0.0.1:{orchestrator}") as grpc_client,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        for _ in range(WARM_UPS + requests):
            begun = time.perf_counter()
            await grpc_client.generate("a fox", seed=1)
            direct.append(1e3 * (time.perf_counter() - begun))
            begun = time.perf_counter()
            answer = await client.post("/v1/muse/generate", json={"prompt": "a fox", "seed": 1})
            through.append(1e3 * (time.perf_counter() - begun))
            if answer.status_code != 200:
                raise RuntimeError(answer.text)
            first.append(await first_event_ms(client))
    pairs = [after - before for before, after in zip(direct, through, strict=True)]
    by_grpc, by_gateway, added, until_first = (
        Spread(each[WARM_UPS:]) for each in (direct, through, pairs, first)
    )
    return by_grpc, by_gateway, added, until_first


async def stream_megabytes(port: int, process: psutil.Process, streams: int) -> float:
    """Returns by how many MB the gateway's memory grows while streams wait."""
    async with contextlib.AsyncExitStack() as open_streams:
        limits = httpx2.Limits(max_connections=streams)
        client = await open_streams.enter_async_context(
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=limits)
        )
        before = process.memory_info().rss
        for seed in range(streams):
            body = {"prompt": ENDLESS, "seed": seed, "stream": True}
            answer = await open_streams.enter_async_context(
                client.stream("POST", "/v1/muse/generate", json=body)
            )
            if answer.status_code != 200:
                raise RuntimeError((await answer.aread()).decode())
        await asyncio.sleep(1)
        return (process.memory_info().rss - before) / 1e6


async def measured(requests: int, streams: int) -> None:
    """Prints the figures."""
    server = grpc.aio.server()
    orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server(StandIn(), server)
    orchestrator = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        with running_gateway(orchestrator) as (port, process):
            direct, through, added, first = await latencies(port, orchestrator, requests)
            megabytes = await stream_megabytes(port, process, streams)
    finally:
        await server.stop(0)
    print(f"one request at a time; ms, median (min-max) of {requests}")
    print(f"by gRPC               {direct:.1f}")
    print(f"through the gateway   {through:.1f}")
    print(f"added                 {added:.1f}, target <= {TARGET_MS:g}")
    print(f"first event of SSE    {first:.1f}, target <= {TARGET_FIRST_MS:g}")
    print(f"{streams} streams that wait  {megabytes:.0f} MB, target < {TARGET_MB:g} for 200")


@app.default
def main(*, requests: int = 200, streams: int = 200) -> None:
    """Prints what the gateway adds to a request, and what an open stream costs it.

    Parameters
    ----------
    requests
        Requests that count, of each kind.
    streams
        Streams that wait at the same time.
    """
    print(conditions("grpcio", "fastapi", "uvicorn"))
    asyncio.run(measured(requests, streams))


if __name__ == "__main__":
    app()
