"""The requests and steps of a dispatch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.scheduling.dispatch import (
    MAX_DISPATCH_ALONE_S,
    MAX_DISPATCH_S,
    MAX_DISPATCH_STEPS,
    requests_to_advance,
    steps_to_take,
)

SHORT_S = MAX_DISPATCH_S / 100


def test_short_steps_share_a_dispatch_when_no_request_waits_or_streams() -> None:
    assert steps_to_take([40, 9], stream=False, waiting=False, step_s=SHORT_S) == 4


def test_no_row_ends_late() -> None:
    assert steps_to_take([40, 3, 7], stream=False, waiting=False, step_s=SHORT_S) == 3


def test_long_steps_have_a_dispatch_each_so_that_a_new_request_joins_at_the_next() -> None:
    for left, longest_s in (([40, 40], MAX_DISPATCH_S), ([40], MAX_DISPATCH_ALONE_S)):
        assert steps_to_take(left, stream=False, waiting=False, step_s=longest_s / 2.5) == 2
        assert steps_to_take(left, stream=False, waiting=False, step_s=longest_s * 2) == 1


def test_a_single_request_takes_more_steps_in_a_dispatch() -> None:
    step_s = MAX_DISPATCH_S
    assert steps_to_take([40], stream=False, waiting=False, step_s=step_s) == 4
    assert steps_to_take([40, 40], stream=False, waiting=False, step_s=step_s) == 1


@pytest.mark.parametrize(
    "circumstance", [{"stream": True}, {"waiting": True}, {"step_s": None}], ids=str
)
def test_a_dispatch_has_one_step_while_requests_stream_or_wait_and_before_a_measurement(
    circumstance: dict[str, object],
) -> None:
    usual: dict[str, object] = {"stream": False, "waiting": False, "step_s": SHORT_S}

    assert steps_to_take([40], **(usual | circumstance)) == 1  # type: ignore[arg-type]


def test_a_dispatch_of_a_busy_device_has_only_the_requests_that_end_in_time() -> None:
    def requests(row_s: float | None, *, waiting: bool = True) -> int:
        return requests_to_advance([2, 2, 1, 2], waiting=waiting, row_s=row_s)

    assert requests(MAX_DISPATCH_S / 5.5) == 3
    assert requests(MAX_DISPATCH_S / 4.5) == 2
    assert requests(MAX_DISPATCH_S * 2) == 1
    assert requests(MAX_DISPATCH_S / 100) == 4
    assert requests(None) == requests(0.0) == requests(MAX_DISPATCH_S, waiting=False) == 4


@pytest.mark.parametrize(("affordable", "taken"), [(1, 4), (4, 4), (7, 4), (8, 8), (20, 10)])
def test_a_device_that_computes_four_requests_at_once_gets_four(
    affordable: int, taken: int
) -> None:
    row_s = MAX_DISPATCH_S / (2 * affordable + 1)
    assert requests_to_advance([2] * 10, waiting=True, row_s=row_s, at_once=4) == taken


def test_a_row_without_steps_ends_without_a_step() -> None:
    assert steps_to_take([0, 5], stream=True, waiting=False, step_s=SHORT_S) == 0


@given(
    left=st.lists(st.integers(0, 256), min_size=1, max_size=16),
    stream=st.booleans(),
    waiting=st.booleans(),
    step_s=st.none() | st.floats(0, 10),
)
def test_a_dispatch_is_bounded_in_steps_and_seconds_and_never_idle(
    left: list[int], stream: bool, waiting: bool, step_s: float | None
) -> None:
    steps = steps_to_take(left, stream=stream, waiting=waiting, step_s=step_s)

    assert min(1, min(left)) <= steps <= min(MAX_DISPATCH_STEPS, *left)
    longest_s = MAX_DISPATCH_ALONE_S if len(left) == 1 else MAX_DISPATCH_S
    assert steps <= 1 or steps * (step_s or 0) <= longest_s
