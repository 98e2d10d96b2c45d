"""A whole orchestrator, under load, that learns from a fake API server which replicas there are."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from muse.common.v1.decoding_pb2 import Sampling
from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest, GetStatusRequest
from muse.orchestrator.v1.orchestrator_pb2_grpc import OrchestratorServiceStub

from services.orchestrator import __main__ as orchestrator
from services.runtime.server.process import running_server
from services.runtime.wire.errors import read_error
from tests.orchestrator.replicas.conftest import FakeApiServer
from tests.waiting import until

SETTINGS = orchestrator.Settings(
    port=0,
    grace_s=0.2,
    discovery="kubernetes",
    text_encoder="dns:///text-encoder:50051",
    tokenizer="dns:///tokenizer:50052",
    base="dns:///base:50053",
    superres="dns:///superres:50054",
)
STEP_S = 0.05  # that a call of base takes here
CALLERS, TURNS = 8, 12


class Cluster:
    """An orchestrator, the fake API server that tells it of pods, and those pods.

    Attributes:
        stub: Calls the orchestrator.
        bases: Every replica of base that was started.
    """

    def __init__(self, api: FakeApiServer, start: Any) -> None:
        self._api, self._start = api, start
        self.stub: Any = None
        self.bases: list[Any] = []

    async def add(self, stage: str) -> Any:
        """Starts a pod and has the API server name it."""
        pod = await self._start(stage)
        self.say(pod, ready=True)
        return pod

    def say(self, pod: Any, **conditions: bool) -> None:
        """Has the API server say how a pod is."""
        service = pod.does.name.replace("_", "-")
        endpoint = {"addresses": ["127.0.0.1"], "conditions": conditions}
        self._api.set(f"{service}-{pod.line.port}", service, pod.line.port, endpoint)

    async def add_base(self) -> None:
        """Starts a replica of base that takes its time."""

        async def around(seed: int) -> None:
            pod.does.busy += 1
            try:
                await asyncio.sleep(STEP_S)
            finally:
                pod.does.busy -= 1

        pod = await self.add("base")
        pod.does.busy = 0
        pod.does.around = around
        self.bases.append(pod)

    async def paint(self, seed: int = 0) -> str:
        """Asks for a picture; what the last event of the answer is."""
        request = GenerateRequest(prompt="a fox", seed=seed, base=Sampling(steps=4))
        call = self.stub.Generate(request, timeout=20)
        return [event async for event in call][-1].WhichOneof("event")

    def counts(self) -> list[int]:
        """How many calls each replica of base saw."""
        return [len(pod.does.asked) for pod in self.bases]


@pytest.fixture
async def cluster(api: FakeApiServer, started: Any) -> AsyncIterator[Cluster]:
    made = Cluster(api, started)
    for stage in ("text_encoder", "superres", "tokenizer"):
        await made.add(stage)
    for _ in range(3):
        await made.add_base()
    service = await orchestrator.build(SETTINGS)
    async with (
        running_server(service, SETTINGS) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        made.stub = OrchestratorServiceStub(channel)
        yield made


async def test_one_is_added_and_one_dies_under_load_and_no_request_fails(cluster: Cluster) -> None:
    answers: list[str] = []

    async def caller(number: int) -> None:
        for turn in range(TURNS):
            answers.append(await cluster.paint(1000 * number + turn))

    callers = [asyncio.create_task(caller(number)) for number in range(CALLERS)]
    await until(lambda: min(cluster.counts()) >= 3, seconds=20)
    await cluster.add_base()
    added_at, before = len(answers), sum(cluster.counts())
    await until(lambda: cluster.counts()[3] > 0, seconds=3)  # noticed within seconds
    dying = cluster.bases[0]
    await until(lambda: len(answers) >= added_at + 20 and dying.does.busy > 0, seconds=20)
    await dying.line.cut()  # as when its machine dies; the API server says nothing yet
    dead_at = len(answers)
    await until(lambda: len(answers) >= dead_at + CALLERS, seconds=20)
    dead_saw = cluster.counts()[0]  # with the calls that were on the wire when it was cut
    await asyncio.gather(*callers)

    assert answers == ["done"] * (CALLERS * TURNS)
    assert dead_at < CALLERS * (TURNS - 2)
    assert cluster.counts()[0] == dead_saw
    assert sum(cluster.counts()) > CALLERS * TURNS  # what died there was done again elsewhere
    share = (sum(cluster.counts()) - before) / 4  # of four replicas, and of three in the end
    assert cluster.counts()[3] >= 0.7 * share


async def test_a_pod_that_ends_gets_no_new_calls_and_ends_those_it_has(cluster: Cluster) -> None:
    gate = asyncio.Event()
    for pod in cluster.bases:
        pod.does.around = lambda seed: gate.wait()
    calls = [asyncio.create_task(cluster.paint(seed)) for seed in range(3)]
    await until(lambda: cluster.counts() == [1, 1, 1])

    cluster.say(cluster.bases[0], ready=False, serving=True, terminating=True)
    await asyncio.sleep(0.5)
    calls += [asyncio.create_task(cluster.paint(seed)) for seed in range(4)]
    await until(lambda: sum(cluster.counts()) == 7)
    assert cluster.counts() == [1, 3, 3]

    gate.set()
    assert await asyncio.gather(*calls) == ["done"] * 7
    assert cluster.bases[0].does.cancelled == 0


async def test_without_a_ready_pod_a_request_is_refused_with_stage_and_since_when(
    cluster: Cluster,
) -> None:
    for pod in cluster.bases:
        cluster.say(pod, ready=False)
    await asyncio.sleep(0.5)

    begun = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cluster.paint()

    refusal = read_error(caught.value)
    assert time.monotonic() - begun < 2
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert "stage base has no ready replica since 20" in refusal.message
    assert "dns:///base:50053 has no ready pod" in refusal.message
    status = await cluster.stub.GetStatus(GetStatusRequest(), timeout=5)
    assert [report.serving for report in status.stages] == [True, False, True, True]

    cluster.say(cluster.bases[1], ready=True)
    await asyncio.sleep(0.5)
    assert await cluster.paint() == "done"


async def test_a_stage_that_says_not_serving_is_refused_with_since_when_and_still_has_a_status(
    cluster: Cluster,
) -> None:
    for pod in cluster.bases:
        await pod.does.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    await asyncio.sleep(0.2)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cluster.paint()
    report = (await cluster.stub.GetStatus(GetStatusRequest(), timeout=5)).stages[1]

    assert "stage base has no ready replica since 20" in read_error(caught.value).message
    assert "its health says NOT_SERVING" in report.unavailable_reason
    assert (report.serving, report.status.stage) == (False, "base")
