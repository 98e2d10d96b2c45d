"""What is served is asked for once in a while, once for a crowd, and again after a failure."""

import asyncio

import pytest
from muse_client import AsyncMuseClient, Unavailable

from services.gateway.served import ServedSystem
from tests.small_stages import DEFAULTS, HIGH_SIDE_PX, House


async def test_a_crowd_asks_once(house: House) -> None:
    async with AsyncMuseClient(house.address) as client:
        system, before = ServedSystem(client), house.stages["base"].statuses
        answers = await asyncio.gather(*(system.current() for _ in range(20)))

    assert house.stages["base"].statuses == before + 1
    served = answers[0]
    assert all(each is served for each in answers)
    assert (served.preset, served.side_px) == ("tiny", HIGH_SIDE_PX)
    assert served.defaults["base"]["steps"] == DEFAULTS["base"].steps


async def test_who_leaves_the_crowd_takes_no_answer_with_them(house: House) -> None:
    async with AsyncMuseClient(house.address) as client:
        system = ServedSystem(client)
        leaving, staying = (asyncio.create_task(system.current()) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()

        assert (await staying).preset == "tiny"


async def test_a_failure_is_asked_again(house: House) -> None:
    async with AsyncMuseClient(house.address) as client:
        system = ServedSystem(client)
        await house.lines["tokenizer"].cut()
        with pytest.raises(Unavailable, match="tokenizer"):
            await system.current()
        await house.lines["tokenizer"].restore()

        async with asyncio.timeout(20):
            while True:
                try:
                    assert (await system.current()).preset == "tiny"
                    return
                except Unavailable:
                    await asyncio.sleep(0.05)
