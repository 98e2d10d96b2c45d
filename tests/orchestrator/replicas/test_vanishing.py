"""Machines that vanish without closing a connection: pings over real ones notice."""

import asyncio
import time
from contextlib import aclosing
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from muse.base.v1.base_pb2 import GenerateRequest
from muse.common.v1.decoding_pb2 import Sampling

from services.orchestrator.calls import Deadline, Retries, events
from services.orchestrator.replicas.replica import HealthState
from services.orchestrator.stage_clients import StageClients
from services.runtime.server import channels
from services.runtime.server.process import SERVING
from services.stages import STAGES
from tests.waiting import until

EVERY_MS, WITHIN_MS = 1000, 500
NOTICED_S = (EVERY_MS + WITHIN_MS) / 1e3


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pings every second, the fastest that gRPC does, where it is 10 s otherwise."""
    monkeypatch.setattr(channels, "KEEPALIVE_TIME_MS", EVERY_MS)
    monkeypatch.setattr(channels, "KEEPALIVE_TIMEOUT_MS", WITHIN_MS)
    monkeypatch.setattr(channels, "MIN_PING_INTERVAL_MS", EVERY_MS // 2)


async def test_a_call_to_a_machine_that_vanished_goes_elsewhere_and_its_slot_is_freed(
    started: Any,
) -> None:
    servers = [await started("base") for _ in range(2)]
    gate = asyncio.Event()
    for each in servers:
        each.does.around = lambda seed: gate.wait()
    addresses = dict.fromkeys(STAGES, "127.0.0.1:1")
    stages = StageClients({**addresses, "base": ",".join(each.address for each in servers)})
    replicas = stages.replicas["base"].replicas

    async def decode() -> list[str]:
        request = GenerateRequest(sampling=Sampling(steps=1))
        retries = Retries("base", Deadline(30))
        while True:
            async with (
                retries as left_s,
                aclosing(events(stages.base.Generate(request, timeout=left_s))) as responses,
            ):
                return [response.WhichOneof("event") async for response in responses]

    try:
        await until(lambda: all(each.health is HealthState.SERVING for each in replicas))
        decoding = asyncio.create_task(decode())
        await until(lambda: sum(len(each.does.asked) for each in servers) == 1)
        vanished, other = sorted(servers, key=lambda each: -len(each.does.asked))
        vanished.line.silent = True
        begun = time.monotonic()
        await until(lambda: len(other.does.asked) == 1, seconds=NOTICED_S + 3)
        assert time.monotonic() - begun > WITHIN_MS / 2e3  # not before it could be known
        gate.set()
        assert await decoding == ["result"]

        (replica,) = (each for each in replicas if each.address == vanished.address)
        assert replica.failures == 1
        await until(lambda: replica.health is HealthState.NOT_SERVING)
    finally:
        await stages.close()


async def test_a_server_ends_the_calls_of_a_machine_that_vanished(started: Any) -> None:
    base = await started("base")
    gate = asyncio.Event()
    base.does.around = lambda seed: gate.wait()
    stages = StageClients({**dict.fromkeys(STAGES, "127.0.0.1:1"), "base": base.address})
    try:
        call = stages.base.Generate(GenerateRequest(sampling=Sampling(steps=1)), timeout=30)
        reading = asyncio.create_task(call.read())
        await until(lambda: len(base.does.asked) == 1)
        base.line.silent = True
        await until(lambda: base.does.cancelled == 1, seconds=NOTICED_S + 3)
        await asyncio.gather(reading, return_exceptions=True)
        call.cancel()
    finally:
        await stages.close()


async def test_a_server_does_not_mind_as_many_pings_as_a_channel_sends(started: Any) -> None:
    base = await started("base")
    options = channels.keepalive_options()
    async with grpc.aio.insecure_channel(base.address, options=options) as channel:
        watching: Any = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        answer = await watching.read()
        silent = asyncio.create_task(watching.read())
        await asyncio.sleep(6 * EVERY_MS / 1e3)  # a server forgives two pings too many
        assert not silent.done()
        silent.cancel()
        await asyncio.gather(silent, return_exceptions=True)
    assert answer.status == SERVING
