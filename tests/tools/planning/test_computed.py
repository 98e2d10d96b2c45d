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


def test_a_call_for_several_decodes_takes_as_long_when_it_is_partly_filled() -> None:
    found = computed(TINY, chip("v5e"), ["base"], efficiency=1, max_batch_size=None, rows=4)["base"]
    assert [each.together for each in found] == [4, 8, 16]
    times, alone = found[1], options("v5e")["base"][3]
    assert isinstance(times, SlotTimes)
    assert isinstance(alone, SlotTimes)
    assert times.step_s[1] == times.step_s[4][:2]
    assert times.step_s[5][5] == pytest.approx(2 * times.step_s[4][4])
    assert times.step_s[8][8] < 0.9 * alone.step_s[8][8]


def test_more_rows_than_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="rows: expected 1 to max_batch_size 2, got 4"):
        computed(TINY, chip("v5e"), ["base"], efficiency=1, max_batch_size=2, rows=4)


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
