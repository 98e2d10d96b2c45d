"""Sends requests at their times and notes what came of each."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from muse.common.v1.stage_pb2 import StageTiming

from services.bench.arrivals import Arrival
from services.bench.targets import Target
from services.runtime.wire.errors import RequestError

OK = "OK"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one request.

    Attributes:
        kind: Name of its kind.
        at_s: When it was due, in seconds from the start.
        latency_s: From when it was due to its end, so that a late sender counts against itself.
        code: Name of the gRPC status it ended with.
        timings: Where its time went, if it was answered.
    """

    kind: str
    at_s: float
    latency_s: float
    code: str
    timings: tuple[StageTiming, ...]


async def run_load(target: Target, arrivals: Sequence[Arrival]) -> list[Outcome]:
    """Sends every request at its time, without waiting for the others.

    Args:
        target: Who answers.
        arrivals: What is sent when, in order of time.

    Returns:
        One outcome a request, in the order they were due.
    """
    begun = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as group:
        sent = []
        for arrival in arrivals:
            await asyncio.sleep(begun + arrival.at_s - asyncio.get_running_loop().time())
            sent.append(group.create_task(_send(target, arrival, begun)))
    return [task.result() for task in sent]


async def _send(target: Target, arrival: Arrival, begun: float) -> Outcome:
    timings: Sequence[StageTiming] = ()
    code = OK
    try:
        timings = await target.send(arrival.kind, arrival.seed)
    except grpc.aio.AioRpcError as error:
        code = error.code().name
    except RequestError as error:
        code = error.code.name
    latency_s = asyncio.get_running_loop().time() - begun - arrival.at_s
    return Outcome(
        kind=arrival.kind.name,
        at_s=arrival.at_s,
        latency_s=latency_s,
        code=code,
        timings=tuple(timings),
    )
