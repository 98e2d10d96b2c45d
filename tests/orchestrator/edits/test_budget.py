"""Memory for edits: whoever finds none waits for its turn, and none is ever lost."""

import asyncio
from typing import Any

import grpc
import pytest

from services.orchestrator.calls import Deadline
from services.orchestrator.edits.budget import PixelBudget
from services.runtime.wire.caller import Caller
from services.runtime.wire.errors import RequestError

FOREVER = Deadline(None)


async def hold(budget: PixelBudget, pixels: int, held: list[int], until: asyncio.Event) -> None:
    async with budget.held(pixels, FOREVER):
        held.append(pixels)
        await until.wait()


async def begin(*coroutines: Any) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(each) for each in coroutines]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_who_does_not_fit_waits_and_the_first_to_come_is_the_first_to_go_on() -> None:
    budget, held, until = PixelBudget(10), [], asyncio.Event()
    tasks = await begin(*(hold(budget, pixels, held, until) for pixels in (6, 8, 1)))
    assert held == [6]  # 1 would fit, but 8 came before it

    until.set()
    await asyncio.gather(*tasks)
    assert held == [6, 8, 1]
    assert budget.free == 10


async def test_who_waits_too_long_is_refused_and_takes_nothing_along() -> None:
    budget, until = PixelBudget(10), asyncio.Event()
    (task,) = await begin(hold(budget, 6, [], until))
    with pytest.raises(RequestError) as refused:
        async with budget.held(8, Deadline(0.01)):
            pass
    assert refused.value.code is grpc.StatusCode.DEADLINE_EXCEEDED

    async with budget.held(4, FOREVER):
        assert budget.free == 0
    until.set()
    await task
    assert budget.free == 10


@pytest.mark.parametrize("waiting", [True, False])
async def test_who_is_cancelled_gives_back_what_it_had(waiting: bool) -> None:
    budget, until = PixelBudget(10), asyncio.Event()
    first, second = await begin(hold(budget, 6, [], until), hold(budget, 8, [], until))
    (second if waiting else first).cancel()
    await asyncio.gather(first if not waiting else second, return_exceptions=True)
    until.set()
    await asyncio.gather(first, second, return_exceptions=True)
    assert budget.free == 10


async def test_when_those_that_wait_hold_all_they_may_the_next_is_refused_and_none_else() -> None:
    budget, held, until = PixelBudget(10, waiting_bytes=7), [], asyncio.Event()

    async def wait(pixels: int, request_bytes: int, name: str) -> None:
        caller = Caller(id=name)
        async with budget.held(pixels, FOREVER, caller=caller, request_bytes=request_bytes):
            held.append(pixels)
            await until.wait()

    tasks = await begin(wait(10, 1000, "a"), wait(5, 4, "a"), wait(4, 3, "b"))
    with pytest.raises(RequestError, match="try again") as refused:
        await wait(1, 1, "c")
    assert refused.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.value.retry_after_s == 2
    assert held == [10]

    until.set()
    await asyncio.gather(*tasks)
    assert held == [10, 5, 4]
    assert budget.free == 10


async def test_a_caller_that_floods_leaves_room_for_another_whose_turn_comes_at_once() -> None:
    budget, order, refused = PixelBudget(10, waiting_bytes=100), [], 0

    async def edit(name: str) -> None:
        nonlocal refused
        try:
            async with budget.held(10, FOREVER, caller=Caller(id=name), request_bytes=5):
                order.append(name)
                await asyncio.sleep(0)
        except RequestError:
            refused += 1

    flood = await begin(*(edit("flood") for _ in range(40)))
    await asyncio.gather(*flood, *(await begin(edit("honest"))))
    assert refused > 20
    assert len(order) + refused == 41
    assert order.index("honest") < 4
    assert budget.free == 10


async def test_one_edit_that_holds_all_bytes_may_wait_alone() -> None:
    budget, until = PixelBudget(10, waiting_bytes=100), asyncio.Event()
    (first,) = await begin(hold(budget, 10, [], until))
    second = asyncio.create_task(_held(budget, request_bytes=100))
    await asyncio.sleep(0)
    until.set()
    await asyncio.gather(first, second)


async def _held(budget: PixelBudget, request_bytes: int) -> None:
    async with budget.held(10, FOREVER, request_bytes=request_bytes):
        pass
