"""Calls that take unusually long go to a second replica too: real calls to stages of the tests."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from muse.base.v1.base_pb2 import GenerateRequest
from muse.common.v1.decoding_pb2 import PROGRESS_DETAIL_STEPS, DecodeState, Sampling
from muse.text_encoder.v1.text_encoder_pb2 import EncodeRequest

from services.orchestrator.replicas.hedging import MIN_SAMPLES, WINDOW, Budget, LatencyWindow
from services.orchestrator.replicas.replica import HealthState
from services.orchestrator.replicas.work import latency_key
from services.orchestrator.stage_clients import StageClients
from services.runtime.wire.errors import resource_exhausted, unavailable
from services.stages import STAGES
from tests.waiting import until

USUAL_S = 0.1  # what a call of one step usually waits, as the set believes
SLOW_S = 5.0
AWAY = "127.0.0.1:1"


class Fleet:
    """Two replicas of a stage behind `StageClients`, of which one can be made slow.

    Attributes:
        stages: Stages to call.
        servers: The replicas.
    """

    def __init__(self, stage: str, servers: list[Any], share: float) -> None:
        addresses = dict.fromkeys(STAGES, AWAY)
        addresses[stage] = ",".join(server.address for server in servers)
        self.stages = StageClients(addresses, hedged_share=share)
        self.set, self.servers = self.stages.replicas[stage], servers
        hedging = self.set._hedging
        assert hedging is not None
        self.hedging = hedging

    async def ready(self) -> None:
        await until(lambda: all(each.health is HealthState.SERVING for each in self.set.replicas))

    def believe(self, method: str, request: Any, usual_s: float = USUAL_S) -> None:
        """Has the set believe that calls like this one wait so long for each unit of work."""
        waits = self.hedging.windows.setdefault((method, latency_key(request)), LatencyWindow())
        for _ in range(MIN_SAMPLES):
            waits.add(usual_s)

    def save(self, copies: float = 1.0) -> None:
        """Allows so many second copies."""
        self.hedging.budget._saved = copies

    def slow(self, index: int, seconds: float = SLOW_S) -> None:
        """Makes a replica slow."""

        async def around(seed: int) -> None:
            await asyncio.sleep(seconds)

        self.servers[index].does.around = around

    def fails(self, index: int, seconds: float, error: Exception) -> None:
        """Has a replica refuse after a while."""

        async def around(seed: int) -> None:
            await asyncio.sleep(seconds)
            raise error

        self.servers[index].does.around = around

    async def first_is(self, index: int) -> None:
        """Has the next call go to a replica first."""
        address = self.servers[index].address
        for replica in self.set.replicas:
            replica.chosen = 0 if replica.address == address else 1

    async def generate(
        self, steps: int = 1, timeout: float | None = 20, **fields: Any
    ) -> list[str]:
        """Has base decode; what each of its answers is."""
        request = GenerateRequest(sampling=Sampling(steps=steps), **fields)
        call = self.stages.base.Generate(request, timeout=timeout)
        try:
            return [response.WhichOneof("event") async for response in call]
        finally:
            call.cancel()

    def counts(self) -> list[int]:
        """How many calls each replica saw."""
        return [len(server.does.asked) for server in self.servers]

    def cancelled(self) -> list[int]:
        """How many calls of each replica were cancelled."""
        return [server.does.cancelled for server in self.servers]


GENERATE = "/muse.base.v1.BaseService/Generate"
PLAIN = GenerateRequest()
STREAMED = GenerateRequest(progress=PROGRESS_DETAIL_STEPS)


@pytest.fixture
async def fleet_of(started: Any) -> AsyncIterator[Callable[..., Any]]:
    """Makes a fleet of a stage, each time it is awaited."""
    made: list[Fleet] = []

    async def make(stage: str, share: float = 1e-9, replicas: int = 2) -> Fleet:
        fleet = Fleet(stage, [await started(stage) for _ in range(replicas)], share)
        made.append(fleet)
        await fleet.ready()
        return fleet

    yield make
    for fleet in made:
        await fleet.stages.close()


@pytest.fixture
async def fleet(fleet_of: Any) -> Fleet:
    """Two replicas of base, of which the first is slow and asked first; one copy is allowed."""
    fleet: Fleet = await fleet_of("base")
    fleet.believe(GENERATE, PLAIN)
    fleet.save()
    fleet.slow(0)
    await fleet.first_is(0)
    return fleet


async def test_a_slow_call_ends_early_by_a_second_copy_and_the_first_is_cancelled(
    fleet: Fleet,
) -> None:
    begun = time.monotonic()
    assert await fleet.generate() == ["result"]

    assert USUAL_S <= time.monotonic() - begun < SLOW_S / 2
    assert fleet.counts() == [1, 1]
    await until(lambda: fleet.cancelled() == [1, 0])
    await until(lambda: all(each.outstanding == 0 for each in fleet.set.replicas))
    assert all(each.failures == 0 for each in fleet.set.replicas)


async def test_a_call_with_one_answer_is_hedged_too(fleet_of: Any) -> None:
    fleet = await fleet_of("text_encoder")
    fleet.believe("/muse.text_encoder.v1.TextEncoderService/Encode", EncodeRequest())
    fleet.save()
    fleet.slow(1)
    await fleet.first_is(1)

    begun = time.monotonic()
    answer = await fleet.stages.text_encoder.Encode(EncodeRequest(texts=["a fox"]), timeout=20)

    assert len(answer.embeddings) == 1
    assert USUAL_S <= time.monotonic() - begun < SLOW_S / 2
    await until(lambda: fleet.cancelled() == [0, 1])


async def test_the_first_copy_may_still_answer_first_and_the_second_is_cancelled(
    fleet: Fleet,
) -> None:
    fleet.slow(0, 4 * USUAL_S)
    fleet.slow(1)

    assert await fleet.generate() == ["result"]
    await until(lambda: fleet.cancelled() == [0, 1])
    await until(lambda: all(each.outstanding == 0 for each in fleet.set.replicas))


async def test_how_long_is_unusual_grows_with_the_steps(fleet: Fleet) -> None:
    fleet.slow(0, 5 * USUAL_S)
    assert await fleet.generate(steps=20) == ["result"]
    assert fleet.counts() == [1, 0]


async def test_nothing_is_unusual_before_enough_calls_were_seen(fleet: Fleet) -> None:
    fleet.hedging.windows.clear()
    fleet.slow(0, 5 * USUAL_S)
    assert await fleet.generate() == ["result"]
    assert fleet.counts() == [1, 0]


async def test_a_replica_with_a_queue_gets_no_second_copy(fleet: Fleet) -> None:
    fleet.slow(0, 5 * USUAL_S)
    fleet.servers[1].does.queued = 1
    assert await fleet.generate() == ["result"]
    assert fleet.counts() == [1, 0]
    assert fleet.hedging.budget.spend()  # it was not spent


async def test_a_replica_that_is_left_out_gets_no_second_copy(fleet: Fleet) -> None:
    fleet.slow(0, 5 * USUAL_S)
    for replica in fleet.set.replicas:
        if replica.address == fleet.servers[1].address:
            replica.ejected_until = time.monotonic() + 60
    assert await fleet.generate() == ["result"]
    assert fleet.counts() == [1, 0]


async def test_without_another_replica_there_is_no_second_copy(fleet_of: Any) -> None:
    fleet = await fleet_of("base", replicas=1)
    fleet.believe(GENERATE, PLAIN)
    fleet.save()
    fleet.slow(0, 5 * USUAL_S)
    assert await fleet.generate() == ["result"]
    assert fleet.counts() == [1]


async def test_a_stream_that_has_begun_to_answer_is_not_hedged(fleet: Fleet) -> None:
    fleet.believe(GENERATE, STREAMED)
    fleet.servers[0].does.steps_before_around = 1
    fleet.slow(0, 5 * USUAL_S)
    received = await fleet.generate(steps=2, progress=PROGRESS_DETAIL_STEPS)
    assert received == ["progress", "progress", "result"]
    assert fleet.counts() == [1, 0]


async def test_a_stream_that_does_not_begin_is_hedged_and_read_to_its_end(fleet: Fleet) -> None:
    fleet.believe(GENERATE, STREAMED)
    received = await fleet.generate(steps=3, progress=PROGRESS_DETAIL_STEPS)
    assert received == ["progress"] * 3 + ["result"]
    assert fleet.counts() == [1, 1]


async def test_an_error_of_the_second_copy_does_not_hurt(fleet: Fleet) -> None:
    fleet.slow(0, 5 * USUAL_S)
    fleet.fails(1, 0, resource_exhausted("full", retry_after_s=1))
    assert await fleet.generate() == ["result"]
    assert fleet.counts() == [1, 1]


async def test_an_error_of_the_first_copy_does_not_hurt_once_there_is_a_second(
    fleet: Fleet,
) -> None:
    fleet.fails(0, 3 * USUAL_S, unavailable("broken"))
    fleet.slow(1, 5 * USUAL_S)
    assert await fleet.generate() == ["result"]
    assert fleet.counts() == [1, 1]


async def test_an_error_of_the_first_copy_is_raised_at_once_without_a_second(
    fleet: Fleet,
) -> None:
    fleet.fails(0, 0, unavailable("broken"))
    with pytest.raises(grpc.aio.AioRpcError, match="broken"):
        await fleet.generate()
    assert fleet.counts() == [1, 0]


@pytest.mark.parametrize(("second_s", "received"), [(0.0, "second"), (6 * USUAL_S, "first")])
async def test_when_both_copies_fail_the_first_error_is_raised(
    fleet: Fleet, second_s: float, received: str
) -> None:
    fleet.fails(0, 4 * USUAL_S, unavailable("the first"))
    fleet.fails(1, second_s, unavailable("the second"))
    with pytest.raises(grpc.aio.AioRpcError, match=f"the {received}"):
        await fleet.generate()
    assert fleet.counts() == [1, 1]


async def test_a_copy_that_hands_the_decode_back_loses_to_one_that_goes_on(fleet: Fleet) -> None:
    fleet.slow(0, 5 * USUAL_S)
    fleet.servers[1].does.preempts_at = [0]
    assert await fleet.generate() == ["result"]
    await until(lambda: fleet.hedging.budget._saved < 1)


async def test_a_decode_that_is_preempted_by_itself_is_passed_on(fleet: Fleet) -> None:
    fleet.servers[0].does.preempts_at = [0]
    assert await fleet.generate(resume=DecodeState()) == ["preempted"]


async def test_when_the_time_is_over_both_copies_end(fleet: Fleet) -> None:
    fleet.slow(1)
    begun = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await fleet.generate(timeout=4 * USUAL_S)

    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - begun < SLOW_S / 2
    await until(lambda: fleet.cancelled() == [1, 1])
    assert fleet.servers[1].does.left_s[0] < 3.5 * USUAL_S  # the time that was left, not all of it


async def test_a_caller_who_goes_takes_both_copies_along(fleet: Fleet) -> None:
    fleet.slow(1)
    call = asyncio.create_task(fleet.generate())
    await until(lambda: fleet.counts() == [1, 1])
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)

    await until(lambda: fleet.cancelled() == [1, 1])
    await until(lambda: all(each.outstanding == 0 for each in fleet.set.replicas))


async def test_over_many_calls_no_more_than_the_share_is_sent_twice(fleet_of: Any) -> None:
    fleet = await fleet_of("base", share=0.02)
    for index in (0, 1):
        fleet.slow(index, 0.01)
    calls = 300
    for _ in range(calls // 10):
        fleet.hedging.windows.clear()
        fleet.believe(GENERATE, PLAIN, 1e-4)  # so that every call is an unusual one
        await asyncio.gather(*(fleet.generate() for _ in range(10)))

    second = sum(fleet.counts()) - calls
    assert 0 < second <= 0.02 * calls


async def test_calls_that_were_traced_say_which_copy_they_are(
    fleet_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from services.runtime.observability import tracing

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "tracer", provider.get_tracer("test"))
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")  # what makes the interceptors appear
    fleet = await fleet_of("base")
    fleet.believe(GENERATE, PLAIN)
    fleet.save()
    fleet.slow(0)
    await fleet.first_is(0)
    with tracing.span("picture"):
        assert await fleet.generate() == ["result"]
    assert await fleet.generate() == ["result"]

    def calls() -> list[Any]:
        return [
            each
            for each in exporter.get_finished_spans()
            if each.name == GENERATE[1:] and each.kind.name == "CLIENT"
        ]

    await until(lambda: len(calls()) == 3)
    said = {
        str(each.attributes.get("muse.hedged")): each.attributes["rpc.response.status_code"]
        for each in calls()
    }
    assert said == {"first": "CANCELLED", "second": "OK", "None": "OK"}
    parents = {each.parent and each.parent.span_id for each in calls()}
    assert len(parents) == 2  # that of both copies, and none


async def test_second_copies_are_counted_by_the_answer_that_counted(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from services.runtime.observability import instruments

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    instruments.HEDGES.bind(provider.get_meter("test"), "orchestrator")
    try:
        await fleet.generate()
    finally:
        instruments.HEDGES.unbind()
    data: Any = reader.get_metrics_data()
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    counted = {
        (point.attributes["target"], point.attributes["answer"]): point.value
        for point in metric.data.data_points
        if point.value
    }
    assert counted == {("base", "second"): 1}


def test_the_usual_wait_is_that_of_99_in_100_of_the_newest_calls() -> None:
    waits = LatencyWindow()
    for value in range(MIN_SAMPLES - 1):
        waits.add(value)
        assert waits.latency_percentile_s() is None
    waits.add(MIN_SAMPLES - 1)
    assert waits.latency_percentile_s() == 98

    for value in range(1000, 1000 + WINDOW):
        waits.add(value)
    assert waits.latency_percentile_s() == 1000 + 0.99 * WINDOW - 1


def test_a_budget_saves_a_few_copies_up_and_no_more() -> None:
    budget = Budget(0.02)
    assert not budget.spend()
    for _ in range(50):
        budget.earn()
    assert budget.spend()
    assert not budget.spend()
    for _ in range(10_000):
        budget.earn()
    assert [budget.spend() for _ in range(4)] == [True, True, True, False]
