"""Targets of load: the whole system, or one of the stages that it has."""

import pytest

from services.stages import NO_STAGE, STAGES, StageName
from tests.small_stages import open_house
from tools.bench.arrivals import Kind
from tools.bench.targets import open_target

KIND = Kind(steps=2, guidance_scale=3.0)


@pytest.mark.parametrize("superres", [True, False])
async def test_the_whole_takes_the_stages_that_are_there(superres: bool) -> None:
    async with (
        open_house(**({} if superres else {"superres": NO_STAGE})) as house,
        open_target("whole", house.address, "a fox", timeout_s=20) as send,
    ):
        timings = await send(KIND, 1)
        scales = {
            name: [request.sampling.guidance_scale for request in house.stages[name].asked]
            for name in ("base", "superres")
            if name in house.stages
        }

    assert [each.stage for each in timings] == [
        each for each in STAGES if superres or each != "superres"
    ]
    assert scales == ({"base": [3], "superres": [3]} if superres else {"base": [3]})


@pytest.mark.parametrize("stage", ["text_encoder", "base", "tokenizer"])
async def test_a_stage_alone_is_sent_its_own_requests(stage: StageName) -> None:
    async with (
        open_house(superres=NO_STAGE) as house,
        open_target(stage, house.address, "a fox", timeout_s=20) as send,
    ):
        before = len(house.stages[stage].asked)
        (timing,) = await send(KIND, 1)
        assert timing.stage == stage
        assert len(house.stages[stage].asked) == before + 1


async def test_a_stage_that_is_not_there_is_refused() -> None:
    async with open_house(superres=NO_STAGE) as house:
        with pytest.raises(ValueError, match=r"expected one of \['text_encoder', 'base', "):
            async with open_target("superres", house.address, "a fox", timeout_s=20):
                pass
