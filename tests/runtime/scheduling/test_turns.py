"""Whose turn it is on a device that several callers share."""

from services.runtime.wire.caller import Caller
from tests.runtime.conftest import Countdown, FakeDevice
from tests.runtime.scheduling.by_hand import Bench


def test_callers_have_equal_parts_of_the_device_however_many_slots_each_has(
    fake_device: type[FakeDevice], countdown: type[Countdown]
) -> None:
    bench = Bench(fake_device(slots=8), countdown)
    for number in range(7):
        bench.submit(f"flood {number}", 40, caller=Caller(id="flood"))
    for _ in range(4):  # alone it has the whole device, and what it had counts no more later
        bench.scheduler.tick()
    before = len(bench.device.dispatches)
    bench.submit("other", 21, caller=Caller(id="other"))
    while not bench.events["other"]:
        bench.scheduler.tick()
    rows = {"flood": 0, "other": 0}
    for steps, names in bench.device.dispatches[before:]:
        for name in names:
            rows[name.split()[0]] += steps
    assert rows == {"flood": 21, "other": 21}

    bench.finish()
    assert bench.device.dispatches[-1][1] == {f"flood {number}" for number in range(7)}
    assert {bench.result(f"flood {number}").result[1] for number in range(7)} == {40}


def test_equal_callers_step_together(
    fake_device: type[FakeDevice], countdown: type[Countdown]
) -> None:
    bench = Bench(fake_device(slots=3), countdown)
    for name in "abc":
        bench.submit(name, 5, caller=Caller(id=name))
    bench.finish()

    assert {names for _, names in bench.device.dispatches} == {frozenset("abc")}


def test_who_has_done_little_for_long_gets_no_more_than_its_part_afterwards(
    fake_device: type[FakeDevice], countdown: type[Countdown]
) -> None:
    bench = Bench(fake_device(slots=2), countdown)
    bench.submit("old", 50, stream=True, caller=Caller(id="old"))
    for _ in range(30):
        bench.scheduler.tick()
    bench.submit("new", 10, stream=True, caller=Caller(id="new"))
    bench.finish()

    assert [names for _, names in bench.device.dispatches[30:40]] == [{"old", "new"}] * 10


def test_a_caller_with_requests_in_the_queue_has_a_quarter_of_the_part_of_one_without(
    fake_device: type[FakeDevice], countdown: type[Countdown]
) -> None:
    bench = Bench(fake_device(slots=4), countdown)
    for number in range(9):
        bench.submit(f"flood {number}", 40, caller=Caller(id="flood"))
    bench.scheduler.tick()
    bench.submit("other", 40, caller=Caller(id="other"))
    before = len(bench.device.dispatches)
    while not bench.events["other"]:
        bench.scheduler.tick()
    rows = {"flood": 0, "other": 0}
    for steps, names in bench.device.dispatches[before:]:
        for name in names:
            rows[name.split()[0]] += steps

    assert rows == {"flood": 10, "other": 40}


def test_a_callers_requests_take_turns_where_one_dispatch_cannot_have_all(
    fake_device: type[FakeDevice], countdown: type[Countdown]
) -> None:
    bench = Bench(fake_device(slots=3), countdown)
    bench.submit("other", 1, caller=Caller(id="other"))
    for number in range(4):
        bench.submit(str(number), 9, caller=Caller(id="flood"))
    for _ in range(8):
        bench.scheduler.tick()

    shared = [names for _, names in bench.device.dispatches if "other" not in names]
    assert [len(names) for names in shared[-6:]] == [1] * 6  # a step takes a second
    assert shared[-6:-3] == shared[-3:]
    assert len(set(shared[-3:])) == 3


def test_a_lone_callers_requests_step_together_however_long_a_step_takes(
    fake_device: type[FakeDevice], countdown: type[Countdown]
) -> None:
    bench = Bench(fake_device(slots=2), countdown)
    for name in "abc":
        bench.submit(name, 5, caller=Caller(id="lone"))
    bench.finish()

    assert [names for _, names in bench.device.dispatches[:5]] == [{"a", "b"}] * 5
