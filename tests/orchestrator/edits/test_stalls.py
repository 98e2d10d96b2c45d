"""Pictures that take long to read: they hold up neither the event loop nor any other request."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from muse.orchestrator.v1.orchestrator_pb2 import MaskFreeEdit

from tests.pictures.odd_files import jpeg_of, png_of, slow_jpeg
from tests.small_stages import House


@asynccontextmanager
async def longest_stall_s() -> AsyncIterator[list[float]]:
    """Yields a list whose one number is the longest time that the event loop took for a turn."""
    longest = [0.0]

    async def tick() -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0)
            longest[0] = max(longest[0], time.monotonic() - begun)
            await asyncio.sleep(0.005)

    ticking = asyncio.create_task(tick())
    yield longest
    ticking.cancel()
    await asyncio.gather(ticking, return_exceptions=True)


@pytest.mark.parametrize(
    "content", [png_of(1_000_000), jpeg_of(500, 65_000)], ids=["chunks", "segments"]
)
async def test_a_header_of_many_parts_is_refused_off_the_event_loop(
    house: House, content: bytes
) -> None:
    async with longest_stall_s() as longest:
        refused = await house.refusal(mask_free_edit=MaskFreeEdit(image=content))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [each.field for each in refused.violations] == ["mask_free_edit.image"]
    assert longest[0] < 2


async def test_pictures_that_take_seconds_to_decode_hold_up_no_other(house: House) -> None:
    edit = house.request(mask_free_edit=MaskFreeEdit(image=slow_jpeg()))
    edits = [house.stub.Generate(edit) for _ in range(8)]  # more than threads of asyncio here
    reading = [asyncio.ensure_future(each.read()) for each in edits]
    await asyncio.sleep(0.5)
    assert await house.works()
    assert not all(each.done() for each in reading)
    for each in edits:
        each.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
