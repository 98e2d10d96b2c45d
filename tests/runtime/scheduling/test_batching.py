"""The batcher, on a real device thread."""

import asyncio
import threading
from collections.abc import Iterator

import grpc
import pytest

from services.runtime.scheduling.batching import Batcher
from services.runtime.scheduling.device_thread import DeviceThread
from services.runtime.server.settings import BatchedServerSettings
from services.runtime.wire.errors import RequestError


class Doubler:
    """Doubles numbers; remembers its batches; waits while its gate is shut."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.started, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def run(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        self.threads.add(threading.current_thread().name)
        self.started.set()
        if not self.gate.wait(10):
            raise TimeoutError("the gate was never opened")
        if -1 in numbers:
            raise ValueError("a poisoned batch")
        return [2 * number for number in numbers]


@pytest.fixture
def device() -> Iterator[DeviceThread]:
    thread = DeviceThread("device-under-test")
    yield thread
    thread.close()


def batcher_of(
    doubler: Doubler, device: DeviceThread, *, max_batch_size: int = 4, max_queued: int = 64
) -> Batcher[int, int]:
    return Batcher(
        doubler.run, device, max_batch_size=max_batch_size, max_wait_s=0.05, max_queued=max_queued
    )


async def until_started(doubler: Doubler) -> None:
    assert await asyncio.to_thread(doubler.started.wait, 10)


async def test_requests_that_come_together_are_computed_together_and_in_order(
    device: DeviceThread,
) -> None:
    doubler = Doubler()
    batcher = batcher_of(doubler, device)
    answers = await asyncio.gather(*(batcher.submit(number) for number in range(6)))

    assert [answer.result for answer in answers] == [0, 2, 4, 6, 8, 10]
    assert doubler.batches == [[0, 1, 2, 3], [4, 5]]
    assert all(name.startswith("device-under-test") for name in doubler.threads)
    assert all(answer.queue_s >= 0 and answer.compute_s >= 0 for answer in answers)


async def test_a_caller_that_is_cancelled_while_waiting_costs_no_compute(
    device: DeviceThread,
) -> None:
    doubler = Doubler()
    batcher = batcher_of(doubler, device, max_batch_size=1)
    doubler.gate.clear()
    first = asyncio.create_task(batcher.submit(1))
    await until_started(doubler)
    leaver, stayer = (asyncio.create_task(batcher.submit(number)) for number in (2, 3))
    await asyncio.sleep(0)
    assert (batcher.load().queued, batcher.load().active) == (2, 1)
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    doubler.gate.set()

    assert [(await first).result, (await stayer).result] == [2, 6]
    assert leaver.cancelled()
    assert doubler.batches == [[1], [3]]


async def test_one_request_too_many_is_refused_at_once_with_a_retry_delay(
    device: DeviceThread,
) -> None:
    doubler = Doubler()
    batcher = batcher_of(doubler, device, max_batch_size=1, max_queued=1)
    doubler.gate.clear()
    running = asyncio.create_task(batcher.submit(1))
    await until_started(doubler)
    waiting = asyncio.create_task(batcher.submit(2))
    await asyncio.sleep(0)
    with pytest.raises(RequestError) as caught:
        await batcher.submit(3)
    doubler.gate.set()

    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s > 0
    assert [(await running).result, (await waiting).result] == [2, 4]


async def test_a_batch_that_fails_is_logged_once_and_does_not_stop_the_next(
    device: DeviceThread, caplog: pytest.LogCaptureFixture
) -> None:
    doubler = Doubler()
    batcher = batcher_of(doubler, device)
    failures = await asyncio.gather(
        *(batcher.submit(number) for number in (1, -1, 3)), return_exceptions=True
    )

    assert [type(failure) for failure in failures] == [RequestError] * 3
    assert {getattr(failure, "code", None) for failure in failures} == {grpc.StatusCode.INTERNAL}
    assert not any("poisoned" in str(failure) for failure in failures)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "a poisoned batch" in str(record.exc_info[1])
    assert (await batcher.submit(5)).result == 10


async def test_draining_waits_for_submitted_requests(device: DeviceThread) -> None:
    doubler = Doubler()
    batcher = batcher_of(doubler, device, max_batch_size=1)
    tasks = [asyncio.create_task(batcher.submit(number)) for number in range(3)]
    await asyncio.sleep(0)
    await batcher.drain()

    assert (batcher.load().queued, batcher.load().active) == (0, 0)
    assert [(await task).result for task in tasks] == [0, 2, 4]


@pytest.mark.parametrize(
    ("max_batch_size", "max_wait_s", "max_queued"), [(0, 0.0, 1), (1, -1.0, 1), (1, 0.0, 0)]
)
def test_invalid_limits_are_refused(
    device: DeviceThread, max_batch_size: int, max_wait_s: float, max_queued: int
) -> None:
    with pytest.raises(ValueError, match="expected max_batch_size"):
        Batcher(
            Doubler().run,
            device,
            max_batch_size=max_batch_size,
            max_wait_s=max_wait_s,
            max_queued=max_queued,
        )


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_an_invalid_wait_is_refused_by_name(wrong: float) -> None:
    with pytest.raises(ValueError, match="max_wait_ms: expected at least 0"):
        BatchedServerSettings(max_wait_ms=wrong)
