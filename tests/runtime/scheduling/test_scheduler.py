"""The scheduler, tick by tick, on a fake device."""

import functools
import random
from typing import Any

import grpc
import pytest

from services.runtime.scheduling.scheduler import SlotScheduler
from services.runtime.scheduling.slots import Failed, Preempted
from services.runtime.wire.caller import Caller, Priority
from services.runtime.wire.errors import RequestError
from services.runtime.wire.timing import Timed
from tests.runtime.conftest import Countdown, FakeDevice
from tests.runtime.scheduling.by_hand import Bench


@pytest.fixture
def bench(fake_device: type[FakeDevice], countdown: type[Countdown]) -> Bench:
    return Bench(fake_device(slots=2), countdown)


def test_a_request_joins_at_the_next_step_and_leaves_when_it_ends(bench: Bench) -> None:
    bench.submit("long", 5)
    bench.scheduler.tick()
    bench.submit("short", 2)
    bench.finish()

    assert bench.device.dispatches == [
        (1, {"long"}),
        (1, {"long", "short"}),
        (1, {"long", "short"}),
        (1, {"long"}),
        (1, {"long"}),
    ]
    assert bench.result("short").result == ("short", 2)
    assert bench.result("long").result == ("long", 5)


def test_a_freed_slot_goes_to_the_request_that_came_first(bench: Bench) -> None:
    for name, steps in (("a", 1), ("b", 3), ("c", 2), ("d", 1)):
        bench.submit(name, steps)
    assert (bench.scheduler.load().queued, bench.scheduler.load().active) == (4, 0)
    bench.scheduler.tick()
    assert (bench.scheduler.load().queued, bench.scheduler.load().active) == (2, 1)
    bench.finish()

    assert [names for _, names in bench.device.dispatches] == [
        {"a", "b"},
        {"b", "c"},
        {"b", "c"},
        {"d"},
    ]
    assert not bench.scheduler.busy


def test_queue_and_compute_add_up_to_the_time_of_each_request(bench: Bench) -> None:
    bench.submit("a", 3)
    bench.submit("b", 4)
    bench.scheduler.tick()
    bench.submit("c", 2)
    bench.finish()

    assert [(bench.result(n).queue_s, bench.result(n).compute_s) for n in "abc"] == [
        (0.0, 3.0),
        (0.0, 4.0),
        (2.0, 2.0),
    ]


def test_a_streaming_request_receives_every_step_in_order_and_the_result_last(bench: Bench) -> None:
    bench.submit("quiet", 6)
    bench.submit("streaming", 3, stream=True)
    bench.finish()

    assert bench.events["streaming"][:-1] == [("streaming", step) for step in (1, 2, 3)]
    assert bench.result("streaming").result == ("streaming", 3)
    assert len(bench.events["quiet"]) == 1


def test_short_steps_share_a_dispatch_once_measured_and_no_request_ends_late(
    fake_device: type[FakeDevice], countdown: type[Countdown]
) -> None:
    bench = Bench(fake_device(slots=2), countdown)
    bench.step_s = 0.0
    bench.submit("long", 12)
    bench.submit("short", 7)
    bench.finish()

    assert [steps for steps, _ in bench.device.dispatches] == [1, 4, 2, 4, 1]


def test_a_cancelled_request_frees_its_slot_within_one_step_and_its_place_at_once(
    bench: Bench,
) -> None:
    for name in ("gone", "stays", "also gone", "next"):
        bench.submit(name, 50)
    bench.scheduler.tick()
    bench.cancel("gone")
    bench.cancel("also gone")
    assert bench.scheduler.load().queued == 1
    bench.scheduler.tick()

    assert bench.device.dispatches == [(1, {"gone", "stays"}), (1, {"stays", "next"})]
    assert bench.events["gone"] == bench.events["also gone"] == []
    bench.cancel("stays")
    bench.cancel("next")
    assert not bench.scheduler.tick()
    assert bench.device.rows == {}


def test_a_request_too_many_is_refused_with_the_time_the_backlog_takes(
    fake_device: type[FakeDevice], countdown: type[Countdown]
) -> None:
    bench = Bench(fake_device(slots=2), countdown, max_queued=4)
    for name in "ab":
        bench.submit(name, 9)
    bench.scheduler.tick()
    for name in "cd":
        bench.submit(name, 10)
    with pytest.raises(RequestError) as caught:
        bench.submit("e", 1)

    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.retry_after_s == pytest.approx((8 + 8 + 10 + 10) / 2)
    bench.finish()
    assert [bench.result(name).result for name in "abcd"] == [
        ("a", 9),
        ("b", 9),
        ("c", 10),
        ("d", 10),
    ]


def test_a_request_that_would_miss_its_deadline_is_refused_with_the_time_after_which_it_fits(
    bench: Bench,
) -> None:
    bench.submit("a", 5)
    bench.submit("b", 9)
    bench.scheduler.tick()  # a step takes a second
    bench.submit("c", 3, within_s=8.0)  # starts in 4 s and ends in 7 s, within nine tenths of 8 s
    with pytest.raises(RequestError, match=r"2 steps from now would end in 9 s") as caught:
        bench.submit("d", 2, within_s=9.5)  # nine tenths of it are 8.55 s
    bench.submit("e", 2, within_s=10.5)
    bench.finish()

    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.retry_after_s == pytest.approx(0.45)
    assert [sum(name in names for _, names in bench.device.dispatches) for name in "cde"] == [
        3,
        0,
        2,
    ]
    assert bench.result("c").queue_s + bench.result("c").compute_s == pytest.approx(7.0)


def test_no_deadline_is_checked_before_the_first_measurement_or_while_the_device_is_idle(
    bench: Bench,
) -> None:
    bench.submit("a", 50, within_s=0.1)
    bench.submit("b", 50, within_s=0.1)
    bench.finish()
    bench.submit("alone", 50, within_s=0.1)  # just as slow, but the device is idle
    bench.finish()

    assert bench.result("alone").result == ("alone", 50)


def test_the_steps_within_a_deadline_leave_a_tenth_of_it_unused(bench: Bench) -> None:
    assert bench.scheduler.max_steps_within(9, 1, 0.1) == 9  # nothing was measured yet
    bench.submit("a", 4)
    bench.submit("b", 7)
    bench.scheduler.tick()  # a step takes a second; the first slot is free in three

    assert bench.scheduler.max_steps_within(9, 1, None) == 9
    assert [
        bench.scheduler.max_steps_within(9, 1, within) for within in (1.0, 5.0, 10.0, 99.0)
    ] == [
        0,
        1,
        6,
        9,
    ]


def test_preempted_requests_keep_their_state_and_new_ones_are_refused(
    bench: Bench,
) -> None:
    for name, steps in (("done", 1), ("begun", 5), ("second", 5), ("waiting", 5)):
        bench.submit(name, steps)
    bench.scheduler.tick()
    bench.scheduler.tick()
    bench.scheduler.preempt()
    assert not bench.scheduler.tick()

    assert bench.result("done").result == ("done", 1)
    assert [bench.events[name][-1] for name in ("begun", "second", "waiting")] == [
        Preempted(("begun", 2)),
        Preempted(("second", 1)),
        Preempted(None),
    ]
    assert bench.device.rows == {}
    with pytest.raises(RequestError) as caught:
        bench.submit("late", 1)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


def test_a_step_that_raises_ends_its_own_requests_and_the_next_have_clean_slots(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.submit("bad", 4, poison="advance")
    bench.submit("concurrent", 4)
    bench.submit("waiting", 3)
    bench.finish()

    (failed,), (concurrent,) = bench.events["bad"], bench.events["concurrent"]
    assert isinstance(failed, Failed)
    assert failed == concurrent
    assert bench.result("waiting").result == ("waiting", 3)
    assert bench.device.resets == 1
    (record,) = caplog.records
    assert (record.__dict__["failure"], record.__dict__["requests"]) == (failed.failure, 2)
    assert "bad is poisoned" in str(record.exc_info)


def test_a_request_that_cannot_be_admitted_fails_alone(bench: Bench) -> None:
    bench.submit("concurrent", 4)
    bench.scheduler.tick()
    bench.submit("bad", 4, poison="admit")
    bench.submit("next", 2)
    bench.finish()

    assert isinstance(bench.events["bad"][0], Failed)
    assert bench.result("concurrent").result == ("concurrent", 4)
    assert bench.result("next").result == ("next", 2)
    assert bench.device.resets == 0


def test_a_device_that_cannot_be_reset_preempts_what_waits_and_refuses_requests_until_it_can(
    bench: Bench,
) -> None:
    bench.device.refuse_resets = 2
    bench.submit("bad", 2, poison="advance")
    bench.submit("concurrent", 2)
    bench.submit("waiting", 2)
    assert bench.scheduler.tick()
    assert bench.scheduler.healthy  # a step failed; no reset was tried yet
    assert not bench.scheduler.tick()

    assert not bench.scheduler.healthy
    assert bench.events["waiting"] == [Preempted(None)]
    with pytest.raises(RequestError, match="device fails") as caught:
        bench.submit("early", 2)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert caught.value.retry_after_s
    bench.finish()  # fails once more
    assert bench.scheduler.busy
    bench.finish()
    assert bench.scheduler.healthy
    bench.submit("lucky", 2)
    bench.finish()
    assert bench.result("lucky").result == ("lucky", 2)


def test_urgent_requests_start_first_and_take_no_slot_away(bench: Bench) -> None:
    batch = Caller(priority=Priority.BATCH)
    for name in "abcd":
        bench.submit(name, 3, caller=batch)
    bench.scheduler.tick()
    bench.submit("urgent", 1)
    bench.finish()

    assert [names for _, names in bench.device.dispatches] == [
        {"a", "b"},
        {"a", "b"},
        {"a", "b"},
        {"urgent", "c"},
        {"c", "d"},
        {"c", "d"},
        {"d"},
    ]


def test_a_deadline_is_checked_from_the_callers_own_place_in_the_queue(bench: Bench) -> None:
    flood, other = Caller(id="flood"), Caller(id="other")
    for number in range(10):
        bench.submit(f"flood {number}", 5, caller=flood)
    bench.scheduler.tick()  # a step takes a second; two requests run, with 4 steps left
    assert bench.scheduler.max_steps_within(9, 1, 5.0, other) == 7
    with pytest.raises(RequestError, match="5 steps from now would end in 29 s"):
        bench.submit("late", 5, within_s=10.0, caller=flood)
    bench.submit("other", 5, within_s=8.0, caller=other)  # it gets a slot at once
    bench.finish()

    other_s = bench.result("other").queue_s + bench.result("other").compute_s
    assert other_s == pytest.approx(5.0 + 2.0)  # the flood has two steps meanwhile


def test_a_request_without_steps_ends_without_a_step(bench: Bench) -> None:
    bench.submit("done", 0, stream=True)
    bench.finish()

    assert bench.events["done"] == [Timed(("done", 0), 0.0, 0.0, 0.0)]


def test_no_slot_is_lost_in_ten_thousand_random_arrivals_departures_and_failures(
    fake_device: type[FakeDevice], countdown: type[Countdown]
) -> None:
    chance = random.Random(3)
    device = fake_device(slots=4)
    bench = Bench(device, countdown, max_queued=20_000)
    names = iter(map(str, range(10_000)))
    left = 10_000
    while left or bench.scheduler.busy:
        for _ in range(min(left, chance.randrange(4))):
            left -= 1
            poison = chance.choices(("", "admit", "advance"), (97, 2, 1))[0]
            bench.submit(
                next(names), chance.randrange(6), stream=chance.random() < 0.1, poison=poison
            )
        if bench.states and chance.random() < 0.5:
            bench.cancel(chance.choice(list(bench.states)[-12:]))
        bench.scheduler.tick()

    assert (bench.scheduler.load().queued, bench.scheduler.load().active) == (0, 0)
    ends = [
        sum(isinstance(event, Timed | Failed) for event in events)
        for events in bench.events.values()
    ]
    for name, count in zip(bench.events, ends, strict=True):
        assert count == 1 or (count == 0 and bench.states[name].cancelled)
    bench.events.clear()
    for name in "abcd":
        bench.submit(name, 1)
    bench.finish()
    assert device.dispatches[-1] == (1, {"a", "b", "c", "d"})


def test_an_invalid_limit_is_refused(fake_device: type[FakeDevice]) -> None:
    with pytest.raises(ValueError, match="max_queued: expected at least 1, got 0"):
        SlotScheduler(fake_device(slots=1), max_queued=0)


def test_device_seconds_are_divided_by_rows_and_add_up_to_the_time_the_device_was_busy(
    fake_device: type[FakeDevice], countdown: type[Countdown]
) -> None:
    now_s, device, results = [0.0], fake_device(slots=2), {}
    advance = device.advance

    def in_three_seconds(steps: int, *slots: Any) -> Any:
        now_s[0] += 3.0 * steps
        return advance(steps, *slots)

    device.advance = in_three_seconds
    scheduler: SlotScheduler[Any, Any] = SlotScheduler(device, max_queued=4, clock=lambda: now_s[0])
    for name, steps, rows in (("one", 2, 1), ("two", 4, 2)):
        request = countdown(name, steps, rows=rows)
        scheduler.submit(request, functools.partial(results.__setitem__, name), stream=True)
    while scheduler.tick():
        pass

    assert results["one"].device_s == pytest.approx(2 * 3.0 / 3)
    assert results["two"].device_s == pytest.approx(2 * 3.0 * 2 / 3 + 2 * 3.0)
    assert results["one"].device_s + results["two"].device_s == pytest.approx(now_s[0])
