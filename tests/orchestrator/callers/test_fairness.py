"""Fair queueing goes by a caller's credential or address, never by a name that it invents."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import grpc
import pytest
from muse.common.v1.caller_pb2 import Caller as CallerMessage
from muse.orchestrator.v1 import orchestrator_pb2_grpc

from services.runtime.scheduling.fair_queue import FairQueue
from services.runtime.wire.caller import unpack_caller
from services.runtime.wire.errors import resource_exhausted
from tests.orchestrator.callers.conftest import KeyFile
from tests.small_stages import Behaviour, House, open_house
from tests.waiting import until

CAPACITY = 16
PATIENCE_S = 60.0  # of a busy machine; what is tested are orders and counts


class OneSlot:
    """A base with one slot and the real queue before it.

    Attributes:
        order: Caller of each request, in the order in which they got the slot.
        queue: Requests that wait.
        refused: How many found no room.
    """

    def __init__(self, base: Behaviour) -> None:
        self._base = base
        self.order: list[str] = []
        self.queue: FairQueue[asyncio.Event] = FairQueue(CAPACITY)
        self.refused = 0
        base.around = self._around

    async def _around(self, seed: int) -> None:
        caller = unpack_caller(self._base.asked[-1].caller)
        if not self.queue.has_room(caller):
            self.refused += 1
            raise resource_exhausted("no room", retry_after_s=1)
        turn = asyncio.Event()
        self.queue.push(turn, caller, cost=1)
        await turn.wait()
        self.order.append(caller.id)
        self.serve_next()

    def serve_next(self) -> None:
        """Gives the slot to who is next."""
        turn = self.queue.pop()
        if turn is not None:
            turn.set()


async def flood(house: House, count: int) -> list[asyncio.Task[Any]]:
    """Sends requests, each with a fresh name."""

    async def send(number: int) -> None:
        with suppress(grpc.aio.AioRpcError):
            await house.events(PATIENCE_S, caller=CallerMessage(id=f"name {number}"))

    return [asyncio.create_task(send(number)) for number in range(count)]


async def check_that_the_honest_one_is_served_at_once(
    house: House, flooding: House, honest: House
) -> None:
    """One of another id finds room beside a flood, and goes before all but one that wait."""
    slot = OneSlot(house.stages["base"])
    tasks = await flood(flooding, 2 * CAPACITY)
    await until(lambda: len(slot.queue) + slot.refused == 2 * CAPACITY, PATIENCE_S)
    assert len(slot.queue) == CAPACITY // 2  # half of the room for one caller
    served = asyncio.create_task(honest.events(PATIENCE_S))
    await until(lambda: len(slot.queue) == CAPACITY // 2 + 1, PATIENCE_S)
    slot.serve_next()
    assert (await served)[-1].HasField("done")
    await asyncio.gather(*tasks)
    assert len(slot.order) == CAPACITY // 2 + 1
    (flooding_id,) = set(slot.order[2:])
    assert sorted(caller == flooding_id for caller in slot.order[:2]) == [False, True]


async def test_a_key_with_a_fresh_name_for_each_request_does_not_starve_another(
    key_file: Callable[..., KeyFile],
) -> None:
    keys = key_file("flood", "honest")
    async with open_house(api_keys_file=keys.path) as house:
        await check_that_the_honest_one_is_served_at_once(
            house, keys.of(house, "flood"), keys.of(house, "honest")
        )


@asynccontextmanager
async def from_address(house: House, address: str) -> AsyncIterator[House]:
    """The house as it is called from another address of this machine."""
    port = int(house.address.rpartition(":")[2])
    pumps: list[asyncio.Task[None]] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        near = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
        pumps.append(asyncio.create_task(pump(reader, near[1])))
        pumps.append(asyncio.create_task(pump(near[0], writer)))

    relaying = await asyncio.start_server(relay, "127.0.0.1", 0)
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{relaying.sockets[0].getsockname()[1]}"
    ) as channel:
        yield replace(house, stub=orchestrator_pb2_grpc.OrchestratorServiceStub(channel))
    relaying.close()
    await asyncio.gather(*pumps)


async def test_an_address_with_a_fresh_name_for_each_request_does_not_starve_another(
    house: House,
) -> None:
    try:
        async with from_address(house, "127.0.0.2") as elsewhere:
            await elsewhere.works()
    except grpc.aio.AioRpcError:
        pytest.skip("this machine has one loopback address")
    house.stages["base"].asked.clear()
    async with from_address(house, "127.0.0.2") as honest:
        await check_that_the_honest_one_is_served_at_once(house, house, honest)
    ids = {request.caller.id for request in house.stages["base"].asked}
    assert ids == {"127.0.0.1", "127.0.0.2"}


async def test_one_caller_cannot_open_all_calls_of_the_server(
    key_file: Callable[..., KeyFile],
) -> None:
    keys, release = key_file("flood", "honest"), asyncio.Event()

    async def wait(seed: int) -> None:
        await release.wait()

    async with open_house(api_keys_file=keys.path, max_calls=8) as house:
        base = house.stages["base"]
        base.around = wait
        flooding = keys.of(house, "flood")
        tasks = [asyncio.create_task(flooding.events(PATIENCE_S)) for _ in range(4)]
        await until(lambda: len(base.asked) == 4, PATIENCE_S)
        for _ in range(8):
            refused = await flooding.refusal()
            assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert refused.message.startswith("4 other calls of caller 'flood' are open")
        served = keys.of(house, "honest")
        honest = [asyncio.create_task(served.events(PATIENCE_S)) for _ in range(2)]
        await until(lambda: len(base.asked) == 6, PATIENCE_S)
        release.set()
        ends = [events[-1] for events in await asyncio.gather(*tasks, *honest)]
        assert [end.HasField("done") for end in ends] == [True] * 6
