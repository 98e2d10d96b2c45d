"""Ten thousand requests, cancelled at random, leave no slot, span or memory behind."""

import asyncio
import gc
import random
import statistics
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import aclosing, suppress
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from services.runtime.observability import tracing
from services.runtime.scheduling.device_thread import DeviceThread
from services.runtime.scheduling.inflight import InflightBatcher
from services.runtime.wire.caller import Caller, Priority
from tests.runtime.conftest import Countdown, FakeDevice
from tests.runtime.observability.open_spans import OpenSpans

ROUNDS, CANCELS_A_ROUND = 10, 1000
AT_A_TIME = 24
MOST_GROWTH_BYTES = 10  # per cancelled request


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> OpenSpans:
    counter, provider = OpenSpans(), TracerProvider()
    provider.add_span_processor(counter)
    monkeypatch.setattr(tracing, "tracer", provider.get_tracer("test"))
    return counter


@pytest.fixture
def thread() -> Iterator[DeviceThread]:
    device_thread = DeviceThread()
    yield device_thread
    device_thread.close()


@pytest.fixture
def device(fake_device: type[FakeDevice]) -> Any:
    """Four slots with slow steps: instant steps would outrun the readers."""
    fake = fake_device(slots=4)
    advance = fake.advance

    def slowly(steps: int, *slots: Any) -> Any:
        time.sleep(0.0002)
        return advance(steps, *slots)

    fake.advance = slowly
    return fake


async def cancel_all(
    batcher: InflightBatcher[Any, Any],
    countdown: type[Countdown],
    chance: random.Random,
    count: int,
) -> None:
    """Submits endless decodes and cancels each: half of them in their slots, half at any time."""
    names = iter(range(count))

    async def read(name: int, received: asyncio.Event, most: int) -> None:
        origin = Caller(id=str(name % 5), priority=chance.choice(list(Priority)))
        request = countdown(str(name), 10**9)
        with tracing.span("request"):
            async with aclosing(batcher.events(request, stream=True, caller=origin)) as events:
                async for _, step in events:
                    received.set()
                    if step > most:  # stops reading
                        return

    async def caller() -> None:
        for name in names:
            received = asyncio.Event()
            task = asyncio.create_task(read(name, received, chance.randrange(1, 5)))
            if name % 2:
                await received.wait()
            else:
                for _ in range(chance.randrange(1, 30)):
                    await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    await asyncio.gather(*(caller() for _ in range(AT_A_TIME)))
    await batcher.drain()


async def growth(
    device: Any, countdown: type[Countdown], thread: DeviceThread, cancels: int = CANCELS_A_ROUND
) -> float:
    """Returns the bytes that memory grew per request, and checks the slots."""
    batcher: InflightBatcher[Any, Any] = InflightBatcher(device, thread, max_queued=1000)
    chance, kept = random.Random(2), []
    tracemalloc.start()
    try:
        for _ in range(ROUNDS):
            await cancel_all(batcher, countdown, chance, cancels)
            assert (batcher.load().active, batcher.load().queued) == (0, 0)
            assert device.rows == {}
            device.dispatches.clear()  # the fake device keeps them
            gc.collect()
            kept.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    results = [event async for event in batcher.events(countdown("next", 2), stream=False)]
    assert results[-1].result == ("next", 2)
    # Medians of early and of late rounds, without the first round, which fills caches.
    requests = (ROUNDS - 4) * cancels
    return (statistics.median(kept[-3:]) - statistics.median(kept[1:4])) / requests


async def test_no_slot_no_span_and_no_memory_is_lost(
    device: Any, countdown: type[Countdown], thread: DeviceThread, spans: OpenSpans
) -> None:
    grown = await growth(device, countdown, thread)

    assert grown < MOST_GROWTH_BYTES
    assert spans.ended > 2 * ROUNDS * CANCELS_A_ROUND
    assert spans.open == set()


async def test_the_check_detects_a_leak_of_one_small_object_per_request(
    device: Any, countdown: type[Countdown], thread: DeviceThread
) -> None:
    admit, leaked = device.admit, []

    def leak(slot: int, request: Any, state: Any = None) -> None:
        leaked.append(request)
        admit(slot, request, state)

    device.admit = leak

    # A leak grows with the requests: a quarter of them shows it as well.
    assert await growth(device, countdown, thread, CANCELS_A_ROUND // 4) > MOST_GROWTH_BYTES
