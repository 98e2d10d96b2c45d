"""What counts as time in which no step was computed."""

import threading
import time
from math import inf

import numpy as np
import pytest

from training import throughput
from training.throughput import Clock, StepEnds


class Seconds:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Returns its seconds."""
        return self.now


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Seconds:
    """The clock that `training.throughput` reads."""
    clock = Seconds()
    monkeypatch.setattr(throughput, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("idle_since", "lost"), [(inf, 0), (8, 2), (4, 5)], ids=["never idle", "idle at 8", "idle at 4"]
)
def test_a_wait_counts_from_the_end_of_the_step_that_was_computed_meanwhile(
    seconds: Seconds, idle_since: float, lost: float
) -> None:
    clock = Clock()
    seconds.now = 5
    with clock.outside("waiting", idle_since=lambda: idle_since):
        seconds.now = 10
    assert clock.elsewhere == {"waiting": lost}
    assert clock.goodput == 1 - lost / 10


def test_everything_else_counts_whole(seconds: Seconds) -> None:
    clock = Clock()
    for _ in range(2):
        with clock.outside("saving"):
            seconds.now += 3
        seconds.now += 2
    assert (clock.elsewhere, clock.goodput) == ({"saving": 6}, 0.4)


def test_the_end_of_a_step_is_known_once_its_results_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computed = threading.Event()
    monkeypatch.setattr(throughput.jax, "block_until_ready", lambda results: computed.wait())
    ends = StepEnds()
    ends.follow(np.zeros(1))
    assert ends.idle_since() == inf
    before = time.monotonic()
    computed.set()
    ends.close()
    assert before <= ends.idle_since() <= time.monotonic()
