"""Open-loop load: requests sent at their times, and the outcome of each."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from muse.common.v1.stage_pb2 import StageTiming
from muse_client import MuseError

from tools.bench.arrivals import Arrival
from tools.bench.targets import Send

OK = "OK"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Outcome of one request.

    Attributes:
        kind: Name of its kind.
        at_s: Scheduled time, in seconds from the start of the run.
        latency_s: Seconds from the scheduled time to the end, so that late sending counts, too.
        code: Name of its gRPC status.
        timings: Timings by stage; empty if it failed.
    """

    kind: str
    at_s: float
    latency_s: float
    code: str
    timings: tuple[StageTiming, ...]


async def run_load(send: Send, arrivals: Sequence[Arrival]) -> list[Outcome]:
    """Sends requests at their times, without waiting for earlier ones; returns their outcomes."""
    begun = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as group:
        sent = []
        for arrival in arrivals:
            await asyncio.sleep(begun + arrival.at_s - asyncio.get_running_loop().time())
            sent.append(group.create_task(_outcome(send, arrival, begun)))
    return [task.result() for task in sent]


async def _outcome(send: Send, arrival: Arrival, begun: float) -> Outcome:
    timings: Sequence[StageTiming] = ()
    code = OK
    try:
        timings = await send(arrival.kind, arrival.seed)
    except grpc.aio.AioRpcError as error:
        code = error.code().name
    except MuseError as error:
        code = error.code.name
    at_s, kind = arrival.at_s, arrival.kind.name
    latency_s = asyncio.get_running_loop().time() - begun - at_s
    return Outcome(kind=kind, at_s=at_s, latency_s=latency_s, code=code, timings=tuple(timings))
