"""How many steps are taken at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.scheduling.dispatch import (
    LONGEST_DISPATCH_ALONE_S,
    LONGEST_DISPATCH_S,
    LONGEST_DISPATCH_STEPS,
    steps_to_take,
)

SHORT_S = LONGEST_DISPATCH_S / 100


def test_several_short_steps_are_taken_at_once_when_nobody_waits_or_watches() -> None:
    assert steps_to_take([40, 9], watched=False, waiting=False, step_s=SHORT_S) == 4


def test_no_row_ends_late() -> None:
    assert steps_to_take([40, 3, 7], watched=False, waiting=False, step_s=SHORT_S) == 3


def test_long_steps_are_taken_one_at_a_time_so_that_a_newcomer_joins_at_the_next() -> None:
    for left, longest_s in (([40, 40], LONGEST_DISPATCH_S), ([40], LONGEST_DISPATCH_ALONE_S)):
        assert steps_to_take(left, watched=False, waiting=False, step_s=longest_s / 2.5) == 2
        assert steps_to_take(left, watched=False, waiting=False, step_s=longest_s * 2) == 1


def test_who_is_alone_takes_more_steps_at_once() -> None:
    step_s = LONGEST_DISPATCH_S
    assert steps_to_take([40], watched=False, waiting=False, step_s=step_s) == 4
    assert steps_to_take([40, 40], watched=False, waiting=False, step_s=step_s) == 1


@pytest.mark.parametrize(
    "circumstance", [{"watched": True}, {"waiting": True}, {"step_s": None}], ids=str
)
def test_it_is_one_step_for_those_who_watch_or_wait_and_before_anything_is_measured(
    circumstance: dict[str, object],
) -> None:
    usual: dict[str, object] = {"watched": False, "waiting": False, "step_s": SHORT_S}

    assert steps_to_take([40], **(usual | circumstance)) == 1  # type: ignore[arg-type]


def test_a_row_with_nothing_to_do_ends_without_a_step() -> None:
    assert steps_to_take([0, 5], watched=True, waiting=False, step_s=SHORT_S) == 0


@given(
    left=st.lists(st.integers(0, 256), min_size=1, max_size=16),
    watched=st.booleans(),
    waiting=st.booleans(),
    step_s=st.none() | st.floats(0, 10),
)
def test_a_dispatch_is_bounded_in_steps_and_seconds_and_never_idle(
    left: list[int], watched: bool, waiting: bool, step_s: float | None
) -> None:
    steps = steps_to_take(left, watched=watched, waiting=waiting, step_s=step_s)

    assert min(1, min(left)) <= steps <= min(LONGEST_DISPATCH_STEPS, *left)
    longest_s = LONGEST_DISPATCH_ALONE_S if len(left) == 1 else LONGEST_DISPATCH_S
    assert steps <= 1 or steps * (step_s or 0) <= longest_s
