"""Computed times are those of `muse describe`, and what does not fit is refused."""

from dataclasses import replace

import pytest

from services.presets import preset
from services.stages import STAGES
from tools.description.chips import chip
from tools.description.description import describe
from tools.planning.computed import BATCHES, computed
from tools.planning.step_times import BatchTimes, SlotTimes, StageTimes

TINY = preset("tiny")


def options(name: str = "v5e", efficiency: float = 1.0) -> dict[str, list[StageTimes]]:
    return computed(TINY, chip(name), STAGES, efficiency=efficiency, max_batch_size=None)


def test_one_image_alone_takes_the_floor_of_describe() -> None:
    floors = {
        name: stage.cost.floor_ms for name, stage in describe(TINY, chip("v5e")).stages.items()
    }
    steps = {"base": TINY.base_steps, "superres": TINY.superres_steps}
    for stage, found in options().items():
        times = found[0]
        if isinstance(times, BatchTimes):
            taken_s = times.seconds(1)
        else:
            count = min(steps[stage], 16 if stage == "base" else 64)
            taken_s = times.residence_s(count, present=1, guided=1)
        assert taken_s * 1e3 == pytest.approx(floors[stage], rel=0.1)


def test_a_step_computes_its_requests_one_after_the_other() -> None:
    times = options("v5e")["base"][3]
    assert isinstance(times, SlotTimes)
    assert times.together == 8
    assert times.step_s[8][8] == pytest.approx(8 * times.step_s[1][1])
    assert times.step_s[8][3] == pytest.approx(5 * times.step_s[1][0] + 3 * times.step_s[1][1])
    assert times.step_s[1][1] >= times.step_s[1][0]


def test_half_of_the_ceiling_takes_twice_as_long() -> None:
    whole, half = options()["text_encoder"], options(efficiency=0.5)["text_encoder"]
    for fast, slow in zip(whole, half, strict=True):
        assert isinstance(fast, BatchTimes)
        assert isinstance(slow, BatchTimes)
        assert slow.seconds(1) == pytest.approx(2 * fast.seconds(1))


def test_only_sizes_that_fit_are_tried_and_a_stage_that_never_does_is_refused() -> None:
    needs = [each.memory_bytes for each in options()["superres"]]
    assert needs == sorted(needs)
    assert len(needs) == len(BATCHES)
    small = replace(chip("v5e"), memory_bytes=needs[1])
    found = computed(TINY, small, ["superres"], efficiency=1, max_batch_size=None)
    assert [each.together for each in found["superres"]] == [1, 2]
    with pytest.raises(ValueError, match=r"superres of tiny does not fit: .* batch of 16"):
        computed(TINY, small, ["superres"], efficiency=1, max_batch_size=16)
