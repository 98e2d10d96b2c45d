"""Which replica a call goes to: real calls over gRPC to small stages of the tests."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from muse.base.v1.base_pb2 import GenerateRequest
from muse.base.v1.base_pb2_grpc import BaseServiceStub
from muse.common.v1.decoding_pb2 import Sampling

from services.orchestrator.replicas.replica import ROUND_ROBIN, HealthState, Replica
from services.orchestrator.replicas.replica_set import ReplicaSet
from services.runtime.wire.errors import RequestError, invalid_field, unavailable
from tests.waiting import until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Bases:
    """A set of base replicas, and the servers behind it.

    Attributes:
        set: The set.
        servers: Every server that was started.
    """

    def __init__(self, start: Any) -> None:
        self._start = start
        self.set = ReplicaSet("base")
        self.stub: Any = BaseServiceStub(self.set)
        self.servers: list[Any] = []

    async def add(self, count: int = 1) -> None:
        """Starts more servers and waits until all serve."""
        self.servers += [await self._start("base") for _ in range(count)]
        self.name(*self.servers)
        await until(lambda: all(each.health is HealthState.SERVING for each in self.set.replicas))

    def name(self, *servers: Any) -> None:
        """Names those there are now."""
        self.set.update(server.address for server in servers)

    def call(self, steps: int = 1, guidance_scale: float = 0) -> asyncio.Task[list[Any]]:
        """Begins a call; a task that reads it to its end."""
        return asyncio.create_task(self._read(steps, guidance_scale))

    async def _read(self, steps: int, guidance_scale: float) -> list[Any]:
        request = GenerateRequest(sampling=Sampling(steps=steps, guidance_scale=guidance_scale))
        call = self.stub.Generate(request, timeout=20)
        try:
            return [response async for response in call]
        finally:
            call.cancel()

    def replica(self, index: int) -> Replica:
        """What the set knows of a server."""
        address = self.servers[index].address
        return next(each for each in self.set.replicas if each.address == address)

    def counts(self) -> list[int]:
        """How many calls each server saw."""
        return [len(server.does.asked) for server in self.servers]

    def hold(self) -> asyncio.Event:
        """Has every server wait with each call until what is returned is set."""
        gate = asyncio.Event()

        async def around(seed: int) -> None:
            await gate.wait()

        for server in self.servers:
            server.does.around = around
        return gate


@pytest.fixture
async def bases(started: Any) -> AsyncIterator[Bases]:
    made = Bases(started)
    yield made
    await made.set.close()


async def test_calls_of_equal_work_take_turns(bases: Bases) -> None:
    await bases.add(3)
    for _ in range(6):
        await bases.call()

    assert bases.counts() == [2, 2, 2]


async def test_a_call_goes_to_the_replica_with_the_least_steps_times_rows(bases: Bases) -> None:
    await bases.add(2)
    gate = bases.hold()
    first = bases.call(steps=10, guidance_scale=4)  # 10 steps of two rows: 20
    await until(lambda: sum(bases.counts()) == 1)
    busy = bases.counts().index(1)
    others = []
    for steps in (6, 6, 6):  # 18 on the other one
        others.append(bases.call(steps=steps))
        await until(lambda: sum(bases.counts()) == 1 + len(others))
    assert bases.counts()[busy] == 1
    assert sorted(each.outstanding for each in bases.set.replicas) == [18, 20]

    others.append(bases.call(steps=6))  # 24 there, so the next goes to the first
    await until(lambda: sum(bases.counts()) == 5)
    last = bases.call(steps=1)
    await until(lambda: bases.counts()[busy] == 2)

    gate.set()
    await asyncio.gather(first, last, *others)
    assert [each.outstanding for each in bases.set.replicas] == [0, 0]


async def test_a_call_that_is_cancelled_leaves_no_work_behind(bases: Bases) -> None:
    await bases.add(2)
    bases.hold()
    call = bases.call(steps=10)
    await until(lambda: sum(bases.counts()) == 1)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)

    await until(lambda: all(each.outstanding == 0 for each in bases.set.replicas))
    await until(lambda: sum(server.does.cancelled for server in bases.servers) == 1)


async def test_calls_that_are_traced_are_counted_as_others_are(
    bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")  # what makes the interceptors appear
    await bases.add(1)
    answers = await bases.call(steps=3)
    assert answers[-1].HasField("result")
    await until(lambda: bases.replica(0).outstanding == 0)

    bases.hold()
    call = bases.call(steps=10)
    await until(lambda: bases.counts() == [2])
    assert bases.replica(0).outstanding == 10
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await until(lambda: bases.replica(0).outstanding == 0)


async def test_a_replica_that_says_not_serving_gets_no_new_calls_until_it_serves_again(
    bases: Bases,
) -> None:
    await bases.add(2)
    gate = bases.hold()
    calls = [bases.call(), bases.call()]
    await until(lambda: bases.counts() == [1, 1])

    await bases.servers[0].does.health.set("", NOT_SERVING)
    await until(lambda: bases.replica(0).health is HealthState.NOT_SERVING, seconds=1)
    calls += [bases.call() for _ in range(4)]
    await until(lambda: sum(bases.counts()) == 6)
    assert bases.counts() == [1, 5]

    gate.set()
    answers = await asyncio.gather(*calls)  # the one under way there, too
    assert [answer[-1].HasField("result") for answer in answers] == [True] * 6
    await bases.servers[0].does.health.set("", SERVING)
    await until(lambda: bases.replica(0).health is HealthState.SERVING)
    await bases.call()
    assert bases.counts() == [2, 5]


async def test_a_replica_that_is_no_longer_named_ends_its_calls_and_gets_no_new_ones(
    bases: Bases,
) -> None:
    await bases.add(2)
    gate = bases.hold()
    calls = [bases.call(), bases.call()]
    await until(lambda: bases.counts() == [1, 1])
    drained = bases.replica(0)

    bases.name(bases.servers[1])
    calls += [bases.call() for _ in range(3)]
    await until(lambda: sum(bases.counts()) == 5)
    assert bases.counts() == [1, 4]

    gate.set()
    answers = await asyncio.gather(*calls)
    assert [answer[-1].HasField("result") for answer in answers] == [True] * 5
    await until(lambda: drained.channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN)


async def test_a_set_that_closes_cancels_also_what_drains(bases: Bases) -> None:
    await bases.add(2)
    bases.hold()
    calls = [bases.call(), bases.call()]
    await until(lambda: bases.counts() == [1, 1])
    bases.name(bases.servers[1])

    await asyncio.wait_for(bases.set.close(), 5)
    ended = await asyncio.gather(*calls, return_exceptions=True)

    assert all(isinstance(each, BaseException) for each in ended)
    await until(lambda: [server.does.cancelled for server in bases.servers] == [1, 1])


async def test_a_new_replica_gets_calls_once_it_serves(bases: Bases) -> None:
    await bases.add(1)
    gate = bases.hold()
    calls = [bases.call() for _ in range(3)]
    await until(lambda: bases.counts() == [3])

    await bases.add(1)
    calls += [bases.call() for _ in range(3)]
    await until(lambda: bases.counts() == [3, 3])

    gate.set()
    await asyncio.gather(*calls)


async def test_a_replica_that_fails_is_left_out_for_a_time_that_grows(bases: Bases) -> None:
    await bases.add(2)
    failing = bases.servers[0]

    async def around(seed: int) -> None:
        raise unavailable("broken")

    failing.does.around = around
    left_out = []
    for failures in (1, 2, 3):
        for _ in range(2):  # one each
            await asyncio.gather(bases.call(), return_exceptions=True)
        await until(lambda expected=failures: bases.replica(0).failures == expected)
        left_out.append(bases.replica(0).ejected_until - time.monotonic())
        before = bases.counts()
        await bases.call()
        await bases.call()
        assert bases.counts() == [before[0], before[1] + 2]
        bases.replica(0).ejected_until = 0.0  # as if the time were over

    assert [round(seconds / 0.5) for seconds in left_out] == [1, 2, 4]
    failing.does.around = None
    await bases.call()
    await bases.call()
    await until(lambda: bases.replica(0).failures == 0)


async def test_the_last_replica_is_never_left_out(bases: Bases) -> None:
    await bases.add(1)

    async def around(seed: int) -> None:
        raise unavailable("broken")

    bases.servers[0].does.around = around
    for _ in range(5):
        with pytest.raises(grpc.aio.AioRpcError, match="broken"):
            await bases.call()

    assert bases.counts() == [5]


async def test_a_refusal_is_no_failure_of_the_replica(bases: Bases) -> None:
    await bases.add(1)

    async def around(seed: int) -> None:
        raise invalid_field("sampling.steps", expected="1 to 256", got=0)

    bases.servers[0].does.around = around
    with pytest.raises(grpc.aio.AioRpcError, match="expected 1 to 256"):
        await bases.call()
    await asyncio.sleep(0.05)

    assert bases.replica(0).failures == 0


async def test_without_a_ready_replica_a_call_is_refused_at_once_with_since_when(
    bases: Bases,
) -> None:
    await bases.add(2)
    lost: list[float] = []
    bases.set.on_change = lambda: lost.append(time.monotonic())
    await bases.servers[0].line.cut()
    await bases.servers[1].does.health.set("", NOT_SERVING)
    await until(lambda: bases.set.unavailable_reason() != "")

    begun = time.monotonic()
    with pytest.raises(RequestError) as caught:
        await bases.call()

    assert time.monotonic() - begun < 0.5
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert caught.value.message.startswith("stage base has no ready replica since 20")
    assert f"{bases.servers[0].address}: UNAVAILABLE" in caught.value.message
    assert f"{bases.servers[1].address}: its health says NOT_SERVING" in caught.value.message
    assert len(lost) == 2

    await bases.servers[0].line.restore()
    await until(lambda: bases.set.unavailable_reason() == "")
    await bases.call()


async def test_an_empty_set_names_the_source_of_its_addresses() -> None:
    empty = ReplicaSet("base", source="dns:///base:50053 has no ready pod")

    with pytest.raises(RequestError, match=r"since 20.*: dns:///base:50053 has no ready pod"):
        empty.choose()
    await empty.close()


async def test_a_name_is_away_when_none_of_its_addresses_can_be_reached(bases: Bases) -> None:
    await bases.add(1)
    port = bases.servers[0].line.port
    bases.set.update([f"dns:///localhost:{port}"])
    (named,) = bases.set.replicas
    await until(lambda: named.health is HealthState.SERVING)
    await bases.call()

    await bases.servers[0].line.cut()
    await until(lambda: named.health is HealthState.NOT_SERVING)
    with pytest.raises(RequestError, match="none of its addresses can be reached"):
        await bases.call()
    assert bases.counts() == [1]


async def test_where_a_name_has_several_addresses_grpc_takes_turns(bases: Bases) -> None:
    await bases.add(3)
    addresses = ",".join(server.address for server in bases.servers)
    async with grpc.aio.insecure_channel(f"ipv4:{addresses}", options=[ROUND_ROBIN]) as channel:
        bases.stub = BaseServiceStub(channel)
        while not all(bases.counts()):  # until it is connected to all
            await bases.call()
        before = bases.counts()
        for _ in range(6):
            await bases.call()

    assert bases.counts() == [count + 2 for count in before]
