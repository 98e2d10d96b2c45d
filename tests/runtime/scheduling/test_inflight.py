"""The in-flight batcher, on a real device thread with a fake device."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.runtime.observability import tracing
from services.runtime.scheduling.device_thread import DeviceThread
from services.runtime.scheduling.inflight import InflightBatcher
from services.runtime.wire.errors import RequestError
from services.runtime.wire.timing import Timed
from tests.runtime.conftest import Countdown, FakeDevice
from tests.waiting import until


@pytest.fixture
def thread() -> Iterator[DeviceThread]:
    device_thread = DeviceThread("device-under-test")
    yield device_thread
    device_thread.close()


async def result_of(batcher: InflightBatcher[Any, Any], request: Any) -> Timed[Any]:
    """Waits for the result of a request."""
    events = [event async for event in batcher.events(request, stream=False)]
    assert isinstance(events[-1], Timed)
    return events[-1]


async def test_many_requests_share_the_slots_and_each_gets_its_own(
    fake_device: type[FakeDevice], countdown: type[Countdown], thread: DeviceThread
) -> None:
    device = fake_device(slots=3)
    batcher = InflightBatcher(device, thread, max_queued=128)
    requests = [countdown(str(number), number % 7) for number in range(40)]
    results = await asyncio.gather(*(result_of(batcher, request) for request in requests))

    assert [timed.result for timed in results] == [
        (request.name, request.steps_left) for request in requests
    ]
    assert all(name.startswith("device-under-test") for name in device.threads)
    assert all(timed.queue_s >= 0 and timed.compute_s >= 0 for timed in results)
    await batcher.drain()
    assert (batcher.load().queued, batcher.load().active) == (0, 0)


async def test_a_request_after_the_device_fell_idle_is_served(
    fake_device: type[FakeDevice], countdown: type[Countdown], thread: DeviceThread
) -> None:
    batcher = InflightBatcher(fake_device(slots=1), thread, max_queued=1)
    for number in range(200):  # each arrives about when the thread runs out of work
        request = countdown(str(number), 1)
        async with asyncio.timeout(10):
            assert (await result_of(batcher, request)).result == (str(number), 1)


async def test_a_caller_that_is_cancelled_or_stops_reading_frees_its_slot(
    fake_device: type[FakeDevice], countdown: type[Countdown], thread: DeviceThread
) -> None:
    device = fake_device(slots=2)
    batcher = InflightBatcher(device, thread, max_queued=8)
    async with aclosing(batcher.events(countdown("reader", 10**6), stream=True)) as events:
        first = await anext(events)
        cancelled = asyncio.create_task(result_of(batcher, countdown("cancelled", 10**6)))
        await until(lambda: batcher.load().active == 2)
        cancelled.cancel()
        await until(lambda: batcher.load().active == 1)
    await until(lambda: batcher.load().active == 0)

    assert first == ("reader", 1)
    assert cancelled.cancelled()
    assert device.rows == {}
    assert (await result_of(batcher, countdown("next", 2))).result == ("next", 2)


async def test_an_expired_deadline_frees_the_slot_for_a_waiting_request_within_one_step(
    fake_device: type[FakeDevice], countdown: type[Countdown], thread: DeviceThread
) -> None:
    device = fake_device(slots=1)
    batcher = InflightBatcher(device, thread, max_queued=8)
    device.gate.clear()
    expired = asyncio.create_task(
        asyncio.wait_for(result_of(batcher, countdown("expired", 10**6)), 0.05)
    )
    assert await asyncio.to_thread(device.started.wait, 10)
    waiting = asyncio.create_task(result_of(batcher, countdown("waiting", 2)))
    with pytest.raises(TimeoutError):
        await expired
    device.gate.set()

    assert (await waiting).result == ("waiting", 2)
    assert device.dispatches[0] == (1, {"expired"})
    assert all(names == {"waiting"} for _, names in device.dispatches[1:])


async def test_a_failure_is_internal_and_has_the_id_of_its_log_record(
    fake_device: type[FakeDevice],
    countdown: type[Countdown],
    thread: DeviceThread,
    caplog: pytest.LogCaptureFixture,
) -> None:
    batcher = InflightBatcher(fake_device(slots=2), thread, max_queued=8)
    with pytest.raises(RequestError) as caught:
        await result_of(batcher, countdown("bad", 3, "advance"))

    (record,) = caplog.records
    assert caught.value.code is grpc.StatusCode.INTERNAL
    assert record.__dict__["failure"] in caught.value.message
    assert "poisoned" not in caught.value.message
    assert (await result_of(batcher, countdown("next", 2))).result == ("next", 2)


async def test_the_spans_of_queue_and_compute_fill_the_time_of_a_request_however_it_ends(
    fake_device: type[FakeDevice],
    countdown: type[Countdown],
    thread: DeviceThread,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "tracer", provider.get_tracer("test"))
    device = fake_device(slots=1)
    batcher = InflightBatcher(device, thread, max_queued=8)
    device.gate.clear()

    async def traced(name: str) -> None:
        with tracing.span(name):
            await result_of(batcher, countdown(name, 3))

    first, never = (asyncio.create_task(traced(name)) for name in ("first", "never"))
    await until(lambda: (batcher.load().active, batcher.load().queued) == (1, 1))
    never.cancel()
    await asyncio.wait([never])
    device.gate.set()
    await first

    spans = exporter.get_finished_spans()
    roots = {each.context.span_id: each.name for each in spans if each.parent is None}
    parts = {
        (roots[each.parent.span_id], each.name): each
        for each in spans
        if each.parent and each.parent.span_id in roots
    }
    assert set(parts) == {("first", "queue"), ("first", "compute"), ("never", "queue")}
    assert parts["first", "queue"].end_time == parts["first", "compute"].start_time
    assert parts["first", "compute"].end_time > parts["first", "compute"].start_time


async def test_draining_waits_for_accepted_requests(
    fake_device: type[FakeDevice], countdown: type[Countdown], thread: DeviceThread
) -> None:
    device = fake_device(slots=1)
    batcher = InflightBatcher(device, thread, max_queued=8)
    device.gate.clear()
    tasks = [
        asyncio.create_task(result_of(batcher, countdown(str(number), 3))) for number in range(3)
    ]
    await until(device.started.is_set)
    assert (batcher.load().queued, batcher.load().active) == (2, 1)
    asyncio.get_running_loop().call_later(0.05, device.gate.set)
    await batcher.drain()

    assert (batcher.load().queued, batcher.load().active) == (0, 0)
    assert [(await task).result for task in tasks] == [("0", 3), ("1", 3), ("2", 3)]
