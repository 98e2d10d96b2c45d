"""The scheduler, turn by turn, on a device made of numbers."""

import functools
import random
from typing import Any

import grpc
import pytest

from services.runtime.scheduling.scheduler import SlotScheduler
from services.runtime.scheduling.slots import Failed, HandedBack
from services.runtime.wire.caller import Claim, Priority
from services.runtime.wire.errors import RequestError
from services.runtime.wire.timing import Timed
from tests.runtime.scheduling.by_hand import Bench


@pytest.fixture
def bench(fake_device: Any, countdown: Any) -> Bench:
    return Bench(fake_device(slots=2), countdown)


def test_a_request_joins_at_the_next_step_and_leaves_when_it_ends(bench: Bench) -> None:
    bench.submit("long", 5)
    bench.scheduler.turn()
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


def test_a_slot_that_is_given_up_serves_who_came_first(bench: Bench) -> None:
    for name, steps in (("a", 1), ("b", 3), ("c", 2), ("d", 1)):
        bench.submit(name, steps)
    assert (bench.scheduler.queued, bench.scheduler.active) == (4, 0)
    bench.scheduler.turn()
    assert (bench.scheduler.queued, bench.scheduler.active) == (2, 1)
    bench.finish()

    assert [names for _, names in bench.device.dispatches] == [
        {"a", "b"},
        {"b", "c"},
        {"b", "c"},
        {"d"},
    ]
    assert not bench.scheduler.busy


def test_queue_and_compute_tell_where_a_requests_own_time_went(bench: Bench) -> None:
    bench.submit("a", 3)
    bench.submit("b", 4)
    bench.scheduler.turn()
    bench.submit("c", 2)
    bench.finish()

    assert [(bench.result(n).queue_s, bench.result(n).compute_s) for n in "abc"] == [
        (0.0, 3.0),
        (0.0, 4.0),
        (2.0, 2.0),
    ]


def test_who_watches_is_told_every_step_in_order_and_the_result_last(bench: Bench) -> None:
    bench.submit("quiet", 6)
    bench.submit("watched", 3, watched=True)
    bench.finish()

    assert bench.told["watched"][:-1] == [("watched", step) for step in (1, 2, 3)]
    assert bench.result("watched").result == ("watched", 3)
    assert len(bench.told["quiet"]) == 1


def test_short_steps_are_fused_once_measured_and_nobody_ends_late(
    fake_device: Any, countdown: Any
) -> None:
    bench = Bench(fake_device(slots=2), countdown)
    bench.scheduler._clock = lambda: 0.0  # steps that take no time
    bench.submit("long", 12)
    bench.submit("short", 7)
    bench.finish()

    assert [steps for steps, _ in bench.device.dispatches] == [1, 4, 2, 4, 1]


def test_an_abandoned_request_frees_its_slot_within_one_step_and_its_place_at_once(
    bench: Bench,
) -> None:
    for name in ("gone", "stays", "also gone", "next"):
        bench.submit(name, 50)
    bench.scheduler.turn()
    bench.abandon("gone")
    bench.abandon("also gone")
    assert bench.scheduler.queued == 1
    bench.scheduler.turn()

    assert bench.device.dispatches == [(1, {"gone", "stays"}), (1, {"stays", "next"})]
    assert bench.told["gone"] == bench.told["also gone"] == []
    bench.abandon("stays")
    bench.abandon("next")
    assert not bench.scheduler.turn()
    assert bench.device.rows == {}


def test_a_request_too_many_is_refused_with_the_time_the_backlog_takes(
    fake_device: Any, countdown: Any
) -> None:
    bench = Bench(fake_device(slots=2), countdown, max_queued=4)
    for name in "ab":
        bench.submit(name, 9)
    bench.scheduler.turn()
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


def test_who_would_be_done_too_late_is_refused_at_once_and_told_when_it_would_fit(
    bench: Bench,
) -> None:
    bench.submit("a", 5)
    bench.submit("b", 9)
    bench.scheduler.turn()  # a step takes a second
    bench.submit("c", 3, within_s=8.0)  # seated in 4 s, done in 7, which is in 9 tenths of 8
    with pytest.raises(RequestError, match=r"2 steps from now would end in 9 s") as caught:
        bench.submit("d", 2, within_s=9.5)  # 9 tenths of it are 8.55 s
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


def test_nobody_is_refused_for_time_before_a_step_was_measured_or_with_the_device_idle(
    bench: Bench,
) -> None:
    bench.submit("a", 50, within_s=0.1)
    bench.submit("b", 50, within_s=0.1)
    bench.finish()
    bench.submit("alone", 50, within_s=0.1)  # as slow as ever, but it measures anew
    bench.finish()

    assert bench.result("alone").result == ("alone", 50)


def test_the_most_steps_in_time_leave_a_tenth_of_it_over(bench: Bench) -> None:
    assert bench.scheduler.most_in_time(9, 1, 0.1) == 9  # nothing was measured yet
    bench.submit("a", 4)
    bench.submit("b", 7)
    bench.scheduler.turn()  # a step takes a second; the first slot is free in three

    assert bench.scheduler.most_in_time(9, 1, None) == 9
    assert [bench.scheduler.most_in_time(9, 1, within) for within in (1.0, 5.0, 10.0, 99.0)] == [
        0,
        1,
        6,
        9,
    ]


def test_what_is_handed_back_says_how_far_it_came_and_nothing_is_taken_after(
    bench: Bench,
) -> None:
    for name, steps in (("done", 1), ("begun", 5), ("seated", 5), ("waiting", 5)):
        bench.submit(name, steps)
    bench.scheduler.turn()
    bench.scheduler.turn()
    bench.scheduler.hand_back()
    assert not bench.scheduler.turn()

    assert bench.result("done").result == ("done", 1)
    assert [bench.told[name][-1] for name in ("begun", "seated", "waiting")] == [
        HandedBack(("begun", 2)),
        HandedBack(("seated", 1)),
        HandedBack(None),
    ]
    assert bench.device.rows == {}
    with pytest.raises(RequestError) as caught:
        bench.submit("late", 1)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


def test_a_step_that_raises_ends_its_own_requests_and_the_next_have_clean_slots(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.submit("bad", 4, poison="advance")
    bench.submit("beside", 4)
    bench.submit("waiting", 3)
    bench.finish()

    (failed,), (beside,) = bench.told["bad"], bench.told["beside"]
    assert isinstance(failed, Failed)
    assert failed == beside
    assert bench.result("waiting").result == ("waiting", 3)
    assert bench.device.resets == 1
    (record,) = caplog.records
    assert (record.__dict__["failure"], record.__dict__["requests"]) == (failed.failure, 2)
    assert "bad is poisoned" in str(record.exc_info)


def test_a_request_that_cannot_be_admitted_fails_alone(bench: Bench) -> None:
    bench.submit("beside", 4)
    bench.scheduler.turn()
    bench.submit("bad", 4, poison="admit")
    bench.submit("next", 2)
    bench.finish()

    assert isinstance(bench.told["bad"][0], Failed)
    assert bench.result("beside").result == ("beside", 4)
    assert bench.result("next").result == ("next", 2)
    assert bench.device.resets == 0


def test_a_device_that_cannot_be_mended_gives_back_who_waits_and_takes_nobody_until_it_can(
    bench: Bench,
) -> None:
    bench.device.refuse_resets = 2
    bench.submit("bad", 2, poison="advance")
    bench.submit("beside", 2)
    bench.submit("waiting", 2)
    assert bench.scheduler.turn()
    assert bench.scheduler.works  # one step failed; the next is not tried yet
    assert not bench.scheduler.turn()

    assert not bench.scheduler.works
    assert bench.told["waiting"] == [HandedBack(None)]
    with pytest.raises(RequestError, match="device fails") as caught:
        bench.submit("early", 2)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert caught.value.retry_after_s
    bench.finish()  # fails once more
    assert bench.scheduler.busy
    bench.finish()
    assert bench.scheduler.works
    bench.submit("lucky", 2)
    bench.finish()
    assert bench.result("lucky").result == ("lucky", 2)


def test_the_urgent_are_seated_first_and_take_no_slot_away(bench: Bench) -> None:
    batch = Claim(priority=Priority.BATCH)
    for name in "abcd":
        bench.submit(name, 3, claim=batch)
    bench.scheduler.turn()
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


def test_a_deadline_counts_on_the_place_that_the_claim_gives(bench: Bench) -> None:
    flood, other = Claim(caller="flood"), Claim(caller="other")
    for number in range(10):
        bench.submit(f"flood {number}", 5, claim=flood)
    bench.scheduler.turn()  # a step takes a second; two are seated, with 4 steps left
    assert bench.scheduler.most_in_time(9, 1, 10.0, other) == 5
    with pytest.raises(RequestError, match="5 steps from now would end in 29 s"):
        bench.submit("late", 5, within_s=10.0, claim=flood)
    bench.submit("other", 5, within_s=10.5, claim=other)
    bench.finish()

    other_s = bench.result("other").queue_s + bench.result("other").compute_s
    assert other_s == pytest.approx(9.0)


def test_a_job_with_nothing_to_do_ends_without_a_step(bench: Bench) -> None:
    bench.submit("done", 0, watched=True)
    bench.finish()

    assert bench.told["done"] == [Timed(("done", 0), 0.0, 0.0, 0.0)]


def test_no_slot_is_lost_in_ten_thousand_random_arrivals_departures_and_failures(
    fake_device: Any, countdown: Any
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
                next(names), chance.randrange(6), watched=chance.random() < 0.1, poison=poison
            )
        if bench.tickets and chance.random() < 0.5:
            bench.abandon(chance.choice(list(bench.tickets)[-12:]))
        bench.scheduler.turn()

    assert (bench.scheduler.queued, bench.scheduler.active) == (0, 0)
    ends = [
        sum(isinstance(event, Timed | Failed) for event in told) for told in bench.told.values()
    ]
    for name, count in zip(bench.told, ends, strict=True):
        assert count == 1 or (count == 0 and bench.tickets[name].abandoned)
    bench.told.clear()
    for name in "abcd":
        bench.submit(name, 1)
    bench.finish()
    assert device.dispatches[-1] == (1, {"a", "b", "c", "d"})


def test_a_senseless_limit_is_refused(fake_device: Any) -> None:
    with pytest.raises(ValueError, match="max_queued: expected at least 1, got 0"):
        SlotScheduler(fake_device(slots=1), max_queued=0)


def test_device_seconds_are_divided_by_rows_and_add_up_to_the_time_the_device_was_busy(
    fake_device: Any, countdown: Any
) -> None:
    now_s, device, told = [0.0], fake_device(slots=2), {}
    advance = device.advance

    def in_three_seconds(steps: int, wanted: Any) -> Any:
        now_s[0] += 3.0 * steps
        return advance(steps, wanted)

    device.advance = in_three_seconds
    scheduler: SlotScheduler[Any, Any] = SlotScheduler(device, max_queued=4, clock=lambda: now_s[0])
    for name, steps, rows in (("one", 2, 1), ("two", 4, 2)):
        job = countdown(name, steps, rows=rows)
        scheduler.submit(job, functools.partial(told.__setitem__, name), watched=True)
    while scheduler.turn():
        pass

    assert told["one"].device_s == pytest.approx(2 * 3.0 / 3)
    assert told["two"].device_s == pytest.approx(2 * 3.0 * 2 / 3 + 2 * 3.0)
    assert told["one"].device_s + told["two"].device_s == pytest.approx(now_s[0])
