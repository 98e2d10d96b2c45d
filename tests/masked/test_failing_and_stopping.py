"""A device that fails and a server that stops cost no other request its picture."""

import asyncio
import threading
from collections.abc import Collection

import grpc
import pytest
from muse.base.v1 import base_pb2
from muse.common.v1 import decoding_pb2

from services.decoding.pool import DecodePool
from services.decoding.slots import Progress
from services.runtime.scheduling import inflight
from services.runtime.wire.errors import read_error
from tests.masked.conftest import Serve, Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.usefixtures("slow_steps")
async def test_a_server_that_stops_ends_the_decodes_it_accepted(serve: Serve, base: Stage) -> None:
    request = base.request(sampling=decoding_pb2.Sampling(steps=10))
    async with serve("base", max_batch_size=1) as stopping:
        calls = [asyncio.create_task(stopping.events(request)) for _ in range(2)]  # one has to wait
        await stopping.until_busy(active=1, queued=1)
        await stopping.stop()
        results = [(await call)[-1].result.tokens for call in calls]

    assert results == [(await base.events(request))[-1].result.tokens] * 2


@pytest.mark.usefixtures("slow_steps")
@pytest.mark.parametrize("slow_steps", [0.4], indirect=True)
async def test_what_a_stopping_server_cannot_finish_goes_on_elsewhere_to_the_same_tokens(
    serve: Serve, base: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = base.request(sampling=decoding_pb2.Sampling(steps=16, seed=3, guidance_scale=2.0))
    async with serve("base", max_batch_size=1, grace_s=7.0) as stopping:
        calls = [asyncio.create_task(stopping.events(request))]
        await stopping.until_busy(active=1)
        calls.append(asyncio.create_task(stopping.events(request)))
        await stopping.until_busy(active=1, queued=1)
        await stopping.stop()
        states = [(await call)[-1].preempted for call in calls]
    monkeypatch.undo()

    assert 0 < states[0].step < 16
    assert states[1].step == 0
    expected = (await base.events(request))[-1].result.tokens
    for state in states:
        resumed = base_pb2.GenerateRequest(resume=state)
        resumed.MergeFrom(request)
        assert (await base.events(resumed))[-1].result.tokens == expected


def fail(self: DecodePool, steps: int, *slots: Collection[int]) -> dict[int, Progress]:
    """Stands in for `advance` of a device that is lost."""
    raise OSError("the device has gone")


async def test_a_step_that_raises_is_internal_with_an_id_and_the_next_request_works(
    base: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    advance, failed = DecodePool.advance, []

    def fail_once(self: DecodePool, steps: int, *slots: Collection[int]) -> dict[int, Progress]:
        if failed:  # the step by which the device is proved works again
            return advance(self, steps, *slots)
        failed.append(steps)
        return fail(self, steps, *slots)

    monkeypatch.setattr(DecodePool, "advance", fail_once)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await base.events(base.request())

    (record,) = [record for record in caplog.records if "failure" in record.__dict__]
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert record.__dict__["failure"] in str(caught.value.details())
    assert "device has gone" in str(record.exc_info)
    assert (await base.events(base.request()))[-1].HasField("result")


async def test_a_device_that_stays_broken_is_not_serving_until_it_works_again(
    serve: Serve, base: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflight, "RECOVERY_INTERVAL_S", 0.05)
    expected = (await base.events(base.request()))[-1].result.tokens
    breaks = threading.Event()

    def fail_then(self: DecodePool, steps: int, *slots: Collection[int]) -> dict[int, Progress]:
        assert breaks.wait(10), "no request waited"
        return fail(self, steps, *slots)

    async with serve("base", max_batch_size=1) as broken:
        with monkeypatch.context() as patch:
            patch.setattr(DecodePool, "advance", fail_then)
            calls = [asyncio.create_task(broken.events(broken.request()))]
            await broken.until_busy(active=1)
            calls.append(asyncio.create_task(broken.events(broken.request())))
            await broken.until_busy(active=1, queued=1)  # or it would be refused
            breaks.set()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await calls[0]
            assert caught.value.code() is grpc.StatusCode.INTERNAL
            preempted = (await calls[1])[-1].preempted
            await broken.until_serving(False)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await broken.events(broken.request())
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            assert (read_error(refused.value).retry_after_s or 0) > 0
        await broken.until_serving(True)

        assert (await broken.events(broken.request()))[-1].result.tokens == expected
    resumed = base.request(resume=preempted)
    assert (await base.events(resumed))[-1].result.tokens == expected


async def test_a_server_whose_device_is_broken_can_be_stopped(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve("base", max_batch_size=1) as broken:
        monkeypatch.setattr(DecodePool, "advance", fail)
        with pytest.raises(grpc.aio.AioRpcError):
            await broken.events(broken.request())
        await broken.until_serving(False)
        async with asyncio.timeout(10):
            await broken.stop()
