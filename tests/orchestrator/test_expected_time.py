"""A request that cannot end in time is refused at its arrival, before any stage works for it."""

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc
import pytest
from muse.common.v1.decoding_pb2 import Sampling
from muse.common.v1.stage_pb2 import StageTiming
from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest
from muse_client import AsyncMuseClient, DeadlineExceeded

from services.orchestrator.calls import Deadline
from services.orchestrator.expected_time import RECENT_S, FastestCalls
from services.runtime.wire.errors import RequestError
from tests.small_stages import House

FOX = GenerateRequest(
    prompt="a fox",
    base=Sampling(steps=24, guidance_scale=4),
    superres=Sampling(steps=8, guidance_scale=4),
)


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def measured(seconds: Mapping[str, float], clock: Clock | None = None) -> FastestCalls:
    """Returns the calls of one request as FOX, of these seconds."""
    fastest = FastestCalls(clock or Clock())
    for stage, each in seconds.items():
        decodes = {"base": 24, "superres": 8}
        fastest.measure(
            StageTiming(stage=stage, compute_s=each, queue_s=100),
            rows=2 if stage in decodes else 1,
            steps=decodes.get(stage, 1),
        )
    return fastest


ALL = {"text_encoder": 0.25, "base": 2.0, "superres": 1.0, "tokenizer": 0.5}


def test_the_whole_way_is_the_sum_of_its_stages() -> None:
    fastest = measured(ALL)
    fastest.check(FOX, Deadline(3.8))
    fastest.check(FOX, Deadline(None))
    with pytest.raises(RequestError, match=r"at least 3\.75 s for this request") as refused:
        fastest.check(FOX, Deadline(3.7))
    assert refused.value.code is grpc.StatusCode.DEADLINE_EXCEEDED

    unprompted = GenerateRequest(base=FOX.base, superres=FOX.superres)
    fastest.check(unprompted, Deadline(3.6))  # no text is encoded


def test_fewer_steps_take_their_share_and_more_steps_at_least_as_long() -> None:
    fastest = measured({"base": 2.4})
    assert fastest.seconds("base", rows=2, steps=12) == pytest.approx(1.2)
    assert fastest.seconds("base", rows=2, steps=48) == 2.4
    assert fastest.seconds("base", rows=1, steps=24) == 0  # none like it was made
    fewest = GenerateRequest()
    fewest.CopyFrom(FOX)
    fewest.base.min_steps = 1
    fastest.check(fewest, Deadline(0.2))


def test_an_edit_may_have_few_open_tokens_and_so_few_steps() -> None:
    inpaint = GenerateRequest()
    inpaint.CopyFrom(FOX)
    inpaint.inpaint.image = b"..."
    measured(ALL).check(inpaint, Deadline(1.0))
    mask_free = GenerateRequest()
    mask_free.CopyFrom(FOX)
    mask_free.mask_free_edit.image = b"..."
    with pytest.raises(RequestError, match="at least"):
        measured(ALL).check(mask_free, Deadline(1.0))


def test_a_slow_call_refuses_nothing_once_one_was_faster() -> None:
    fastest = measured({"base": 1.0})
    fastest.measure(StageTiming(stage="base", compute_s=50), rows=2, steps=24)
    assert fastest.seconds("base", rows=2, steps=24) == 1.0


def test_what_was_slow_is_tried_again_after_a_while() -> None:
    clock = Clock()
    fastest = measured({"base": 50.0}, clock)
    with pytest.raises(RequestError):
        fastest.check(FOX, Deadline(10))
    clock.now_s += RECENT_S + 1
    fastest.check(FOX, Deadline(10))
    fastest.measure(StageTiming(stage="base", compute_s=60), rows=2, steps=24)
    assert fastest.seconds("base", rows=2, steps=24) == 60  # the stage has become slower


async def test_a_request_alone_is_refused_before_any_stage_works_for_it(house: House) -> None:
    async def slow(seed: int) -> StageTiming:
        await asyncio.sleep(0.3)
        return StageTiming(stage="superres", compute_s=0.3, device_s=0.3)

    house.stages["superres"].around = slow
    async with AsyncMuseClient(house.address, timeout_s=20) as client:
        assert len(await client.generate("a fox")) == 1
    for stage in house.stages.values():
        stage.asked.clear()
    async with AsyncMuseClient(house.address, timeout_s=0.2) as client:
        with pytest.raises(DeadlineExceeded, match=r"the stages take at least 0\.3\S* s"):
            await client.generate("a fox")
    assert [stage.asked for stage in house.stages.values()] == [[], [], [], []]


async def test_a_stage_has_the_time_that_the_stages_after_it_leave(house: House) -> None:
    async def slow(seed: int) -> Any:
        return StageTiming(stage="superres", compute_s=3, device_s=3)

    house.stages["superres"].around = slow
    async with AsyncMuseClient(house.address, timeout_s=10) as client:
        for _ in range(2):
            assert len(await client.generate("a fox")) == 1
    first_s, second_s = house.stages["base"].left_s
    assert first_s is not None
    assert second_s is not None
    assert 9 < first_s < 10.5  # gRPC rounds both up
    assert 6 < second_s < 7.5
