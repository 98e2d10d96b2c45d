"""How long a caller's requests take beside a flood of another's, in virtual time."""

import random
from collections.abc import Callable, Collection
from typing import Any

import pytest

from services.runtime.scheduling.scheduler import SlotScheduler
from services.runtime.wire.caller import Caller
from tests.runtime.conftest import Countdown, FakeDevice

SLOTS, REQUESTS, FLOOD = 8, 60, 100
DISPATCH_S = 0.0005  # what the host adds to each dispatch


class VirtualDevice(FakeDevice):
    """Computes rows one after the other, in virtual time; something happens at a time in it."""

    def __init__(self, row_s: float) -> None:
        super().__init__(SLOTS)
        self.row_s, self.now_s = row_s, 0.0
        self.event: tuple[float, Callable[[], None]] | None = None

    def wait(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        if self.event is not None and self.event[0] <= end_s:
            (self.now_s, happen), self.event = self.event, None
            happen()
        self.now_s = end_s

    def admit(self, slot: int, request: Countdown, state: tuple[str, int] | None = None) -> None:
        super().admit(slot, request, state)
        self.wait(self.row_s)

    def advance(
        self, steps: int, wanted: Collection[int], resting: Collection[int] = ()
    ) -> dict[int, tuple[str, int]]:
        moving = [slot for slot in self.rows if self._left(slot) > 0 and slot not in resting]
        rows = sum(self.rows[slot][0].rows for slot in moving)
        self.wait(DISPATCH_S + steps * rows * self.row_s)
        return super().advance(steps, wanted, resting)


def seconds(steps: int, row_s: float, flood: int) -> list[float]:
    """Returns how long guided requests take that come at any time, one after the other."""
    chance, device = random.Random(3), VirtualDevice(row_s)
    scheduler: SlotScheduler[Any, Any] = SlotScheduler(
        device, max_queued=4 * FLOOD, clock=lambda: device.now_s
    )
    open_requests = [0]

    def fill() -> None:
        while open_requests[0] < flood:
            open_requests[0] += 1
            request = Countdown("flood", steps, rows=2)
            scheduler.submit(request, one_ended, stream=False, caller=Caller(id="flood"))

    def one_ended(event: object) -> None:
        open_requests[0] -= 1

    def submit() -> None:
        arrival_s = device.now_s
        scheduler.submit(
            Countdown("honest", steps, rows=2),
            lambda event: taken_s.append(device.now_s - arrival_s),
            stream=False,
            caller=Caller(id="honest"),
        )

    taken_s: list[float] = []
    fill()
    for number in range(REQUESTS):
        device.event = device.now_s + chance.random() * steps * 2 * row_s, submit
        if not flood:
            device.wait(steps * 2 * row_s)
        while len(taken_s) == number:
            scheduler.tick()
            fill()
    return sorted(taken_s)


@pytest.mark.parametrize(
    ("steps", "row_s"), [(24, 0.006), (8, 0.015), (24, 0.004), (8, 0.02)], ids=str
)
def test_all_but_the_first_take_at_most_one_and_a_half_times_as_long_as_alone(
    steps: int, row_s: float
) -> None:
    alone, beside = (seconds(steps, row_s, flood) for flood in (0, FLOOD))

    assert beside[-2] <= 1.5 * alone[-2]
    assert beside[0] > alone[0]
