"""The forecast equals the simulated finish time."""

import random
from typing import Any

import pytest

from services.runtime.scheduling.forecast import StepTimes, Work, seconds_to_finish
from services.runtime.scheduling.scheduler import SlotScheduler
from services.runtime.wire.caller import Caller
from services.runtime.wire.timing import Timed
from tests.runtime.conftest import Countdown, FakeDevice


def test_more_rows_than_were_measured_take_longer_in_proportion_and_fewer_as_long() -> None:
    times = StepTimes()
    assert times.seconds(1) is None
    times.measure(4, 2.0)
    assert [times.seconds(rows) for rows in (1, 4, 6)] == [2.0, 2.0, 3.0]
    times.measure(2, 1.0)
    assert [times.seconds(rows) for rows in (1, 2, 3, 4)] == [1.0, 1.0, 2.0, 2.0]
    times.measure(2, 2.0)
    assert times.seconds(2) == pytest.approx(1.2)


@pytest.mark.parametrize("seed", range(30))
def test_a_new_request_ends_at_its_forecast_time(
    seed: int, fake_device: type[FakeDevice], countdown: type[Countdown]
) -> None:
    random_ = random.Random(seed)
    slots = random_.randint(1, 4)
    step_s = [0.0, *(random_.uniform(0.1, 2.0) for _ in range(slots))]  # by the rows in a step
    times = StepTimes()
    for rows in range(1, slots + 1):
        times.measure(rows, step_s[rows])
    device, now_s = fake_device(slots=slots), 0.0
    original = device.advance

    def advance(steps: int, *slots: Any) -> Any:
        nonlocal now_s
        now_s += steps * step_s[sum(device._left(slot) > 0 for slot in device.rows)]
        return original(steps, *slots)

    device.advance = advance
    scheduler: SlotScheduler[Any, Any] = SlotScheduler(device, max_queued=100, clock=lambda: now_s)
    ahead = [random_.randint(1, 12) for _ in range(random_.randint(0, 12))]
    results: list[Any] = []
    for index, steps in enumerate(ahead):
        scheduler.submit(countdown(str(index), steps), lambda event: None, stream=False)
    own = random_.randint(0, 12)
    scheduler.submit(countdown("newcomer", own), results.append, stream=False)
    for index in range(slots if len(ahead) >= slots else 0):
        scheduler.submit(countdown(f"next {index}", 200), lambda event: None, stream=False)
    expected_s = seconds_to_finish(
        Work(own, 1), ahead=[Work(steps, 1) for steps in ahead], slots=slots, times=times
    )
    while not results:
        scheduler.tick()

    (timed,) = results
    assert isinstance(timed, Timed)
    assert timed.queue_s + timed.compute_s == pytest.approx(expected_s)


def test_running_requests_count_with_their_steps_left() -> None:
    times = StepTimes()
    times.measure(1, 1.0)
    times.measure(2, 1.0)

    def forecast(steps: int, running: list[int], ahead: list[int]) -> float | None:
        return seconds_to_finish(
            Work(steps, 1),
            running=[Work(left, 1) for left in running],
            ahead=[Work(left, 1) for left in ahead],
            slots=2,
            times=times,
        )

    assert forecast(4, [3, 10], []) == 7.0
    assert forecast(4, [3], []) == 4.0
    assert forecast(0, [3, 10], [2]) == 5.0


def test_with_all_slots_taken_steps_stay_as_long_as_now() -> None:
    times = StepTimes()
    for rows in (1, 2):
        times.measure(rows, float(rows))

    def forecast(running: int) -> float | None:
        return seconds_to_finish(Work(10, 1), running=[Work(1, 1)] * running, slots=2, times=times)

    assert forecast(1) == 2.0 + 9.0  # with a free slot it runs alone once the other request ends
    assert forecast(2) == 2.0 + 20.0


def test_requests_behind_take_part_in_the_steps_of_those_ahead() -> None:
    times = StepTimes()
    for rows in (1, 2, 4):
        times.measure(rows, float(rows))
    guided, single = Work(3, 2), Work(3, 1)

    assert seconds_to_finish(single, slots=2, times=times) == 3.0
    assert seconds_to_finish(guided, slots=2, times=times) == 6.0
    assert seconds_to_finish(guided, behind=[guided], slots=2, times=times) == 12.0
    assert seconds_to_finish(single, behind=[Work(1, 1)] * 9, slots=2, times=times) == 6.0


@pytest.mark.parametrize("seed", range(20))
def test_beside_other_callers_a_request_ends_near_its_forecast_time(
    seed: int, fake_device: type[FakeDevice], countdown: type[Countdown]
) -> None:
    random_ = random.Random(seed)
    callers = [Caller(id=name) for name in "abc"]
    times = StepTimes()
    for rows in range(1, 9):
        times.measure(rows, float(rows))
    device, now_s = fake_device(slots=8), 0.0
    original = device.advance

    def advance(steps: int, wanted: Any, resting: Any) -> Any:
        nonlocal now_s
        now_s += steps * sum(device._left(slot) > 0 for slot in device.rows.keys() - resting)
        return original(steps, wanted, resting)

    device.advance = advance
    scheduler: SlotScheduler[Any, Any] = SlotScheduler(device, max_queued=100, clock=lambda: now_s)
    running = [(random_.randint(20, 60), random_.choice(callers)) for _ in range(7)]
    results: list[Any] = []
    for index, (steps, caller) in enumerate(running):
        scheduler.submit(
            countdown(str(index), steps), lambda event: None, stream=True, caller=caller
        )
    own, caller = random_.randint(10, 40), random_.choice(callers)
    scheduler.submit(countdown("own", own), results.append, stream=False, caller=caller)
    expected_s = seconds_to_finish(
        Work(own, 1, caller),
        running=[Work(steps, 1, caller) for steps, caller in running],
        slots=8,
        times=times,
    )
    while not results:
        scheduler.tick()

    turn_s = 8 * 3.0  # a step of each caller: whose turn comes first is not forecast
    assert now_s == pytest.approx(expected_s, abs=2 * turn_s)
