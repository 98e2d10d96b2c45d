"""Point 1 of the method: the cosine schedule."""

import pytest

from services.decoding.schedule import masked_after_each_step, unmasked_per_step

BASE_24 = [1, 2, 2, 4, 5, 6, 7, 8, 9, 9, 11, 11, 13, 13, 13, 14, 15, 16, 15, 16, 17, 16, 17, 16]
SUPERRES_8 = [79, 233, 379, 509, 621, 708, 768, 799]


def test_256_tokens_in_24_steps_and_4096_in_8_follow_the_golden_counts() -> None:
    assert unmasked_per_step(256, 24) == BASE_24
    assert unmasked_per_step(4096, 8) == SUPERRES_8


def test_every_step_of_every_schedule_reveals_a_token_and_the_last_leaves_none() -> None:
    for unknown in range(1, 65):
        for steps in range(1, 70):
            counts = unmasked_per_step(unknown, steps)
            assert len(counts) == min(steps, unknown)
            assert min(counts) >= 1
            assert sum(counts) == unknown


def test_a_schedule_counts_from_the_unknown_tokens_of_its_own_sample() -> None:
    assert masked_after_each_step(100, 4) == [92, 70, 38, 0]
    assert masked_after_each_step(0, 4) == []


@pytest.mark.parametrize(("unknown", "steps"), [(-1, 4), (16, 0)])
def test_an_impossible_schedule_is_refused(unknown: int, steps: int) -> None:
    with pytest.raises(ValueError, match="unknown >= 0 and steps >= 1"):
        masked_after_each_step(unknown, steps)
