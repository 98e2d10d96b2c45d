"""A caller without a slot gets one of a caller that has several; what loses it goes on later."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.runtime.observability import tracing
from services.runtime.scheduling.device_thread import DeviceThread
from services.runtime.scheduling.inflight import InflightBatcher
from services.runtime.scheduling.slots import Preempted
from services.runtime.wire.caller import Caller, Priority
from services.runtime.wire.timing import Timed
from tests.runtime.conftest import Countdown, FakeDevice
from tests.runtime.scheduling.by_hand import Bench
from tests.waiting import until

FLOOD, OTHER, THIRD = (Caller(id=name) for name in ("flood", "other", "third"))
BATCH = Caller(id="batch", priority=Priority.BATCH)


@pytest.fixture
def bench(fake_device: type[FakeDevice], countdown: type[Countdown]) -> Bench:
    return Bench(fake_device(slots=2), countdown)


def steps_of(bench: Bench) -> Counter[str]:
    """Returns the steps that the device took of each request."""
    taken: Counter[str] = Counter()
    for steps, names in bench.device.dispatches:
        for name in names:
            taken[name] += steps
    return taken


def parked(bench: Bench) -> set[str]:
    """Returns the requests that lost a slot so far."""
    return {name for name, state in bench.states.items() if any(stay.end_s for stay in state.stays)}


def begin_flood(bench: Bench, *, stream: bool = False, caller: Caller = FLOOD) -> None:
    """Runs a short and a long request of one caller for three seconds, before a third."""
    for name, steps in (("short", 9), ("long", 20), ("next", 3)):
        bench.submit(name, steps, stream=stream, caller=caller)
    for _ in range(3):
        bench.scheduler.tick()


def test_a_newcomer_gets_the_slot_with_the_most_steps_left_at_once_and_no_step_is_lost(
    bench: Bench,
) -> None:
    begin_flood(bench)
    bench.submit("other", 4, caller=OTHER)
    bench.scheduler.tick()

    assert bench.states["other"].queue_s == 0.0
    assert bench.device.dispatches[-1] == (1, frozenset({"other"}))
    assert parked(bench) == {"long"}
    load = bench.scheduler.load()
    assert (load.active, load.queued, load.queued_steps) == (2, 2, (20 - 3) + 3)
    bench.finish()
    assert bench.result("long").result == ("long", 20)
    assert steps_of(bench) == {"short": 9, "long": 20, "next": 3, "other": 4}


def test_the_wait_of_a_parked_request_is_no_time_in_a_slot(bench: Bench) -> None:
    begin_flood(bench)
    bench.submit("other", 4, caller=OTHER)
    bench.finish()

    long, other = bench.result("long"), bench.result("other")
    (first, second) = bench.states["long"].stays
    assert (first.start_s, first.end_s) == (0.0, 3.0)
    assert second.start_s == 3.0 + other.compute_s  # before the one that waited behind it
    assert long.queue_s == other.compute_s
    assert long.queue_s + long.compute_s == bench.now_s - bench.states["long"].arrival_s


def test_a_stream_goes_on_where_it_was_parked(bench: Bench) -> None:
    begin_flood(bench, stream=True)
    bench.submit("other", 4, caller=OTHER)
    bench.finish()

    assert parked(bench) == {"long"}
    assert bench.events["long"][:-1] == [("long", step + 1) for step in range(20)]


def test_neither_a_lone_caller_nor_one_with_a_single_slot_is_parked(bench: Bench) -> None:
    begin_flood(bench)
    bench.finish()
    assert parked(bench) == set()

    for name, caller in (("a", FLOOD), ("b", OTHER), ("c", THIRD), ("d", THIRD)):
        bench.submit(name, 5, caller=caller)
        bench.scheduler.tick()
    bench.finish()
    assert parked(bench) == set()
    assert bench.states["c"].queue_s > 0


def test_a_freed_slot_goes_to_a_caller_without_one_before_what_is_parked(bench: Bench) -> None:
    begin_flood(bench)
    bench.submit("other", 4, caller=OTHER)
    bench.scheduler.tick()
    bench.submit("third", 2, caller=THIRD)
    bench.finish()

    starts_s = {name: state.stays[-1].start_s for name, state in bench.states.items()}
    assert starts_s["other"] < starts_s["third"] < starts_s["long"] <= starts_s["next"]
    assert len(bench.states["long"].stays) == 2


def test_a_parked_request_may_be_parked_again_and_still_loses_no_step(bench: Bench) -> None:
    bench.submit("long", 60, caller=FLOOD)
    bench.submit("short", 40, caller=FLOOD)
    for number in range(3):
        bench.scheduler.tick()
        bench.submit(f"other {number}", 2, caller=Caller(id=str(number)))
        while not bench.events[f"other {number}"]:
            bench.scheduler.tick()
    bench.finish()

    assert len(bench.states["long"].stays) == 4
    assert steps_of(bench)["long"] == 60


def test_a_less_urgent_newcomer_waits_and_a_more_urgent_one_does_not(bench: Bench) -> None:
    begin_flood(bench)
    bench.submit("batch", 3, caller=BATCH)
    bench.finish()
    assert parked(bench) == set()

    begin_flood(bench, caller=BATCH)
    bench.submit("urgent", 3, caller=OTHER)
    bench.scheduler.tick()
    assert bench.states["urgent"].queue_s == 0.0
    assert parked(bench) == {"long"}


def test_the_less_urgent_of_two_callers_with_several_slots_gives_one(
    fake_device: type[FakeDevice], countdown: type[Countdown]
) -> None:
    bench = Bench(fake_device(slots=5), countdown)
    for number in range(3):
        bench.submit(f"flood {number}", 50, caller=FLOOD)
    for number in range(2):
        bench.submit(f"batch {number}", 10, caller=BATCH)
    bench.scheduler.tick()
    bench.submit("other", 2, caller=OTHER)
    bench.scheduler.tick()
    assert len(parked(bench) & {"batch 0", "batch 1"}) == 1
    bench.submit("third", 2, caller=THIRD)
    bench.scheduler.tick()
    assert len(parked(bench)) == 2
    assert len(parked(bench) & {"flood 0", "flood 1", "flood 2"}) == 1


def test_a_request_that_is_cancelled_while_it_is_parked_never_comes_back(bench: Bench) -> None:
    begin_flood(bench)
    bench.submit("other", 4, caller=OTHER)
    bench.scheduler.tick()
    bench.cancel("long")
    assert bench.scheduler.load().queued == 1
    bench.finish()

    assert steps_of(bench)["long"] == 3
    assert bench.events["long"] == []
    assert bench.device.rows.keys() <= {0, 1}
    assert not bench.scheduler.busy


def test_a_process_that_stops_hands_over_the_state_of_what_is_parked(bench: Bench) -> None:
    begin_flood(bench)
    bench.submit("other", 4, caller=OTHER)
    bench.scheduler.tick()
    bench.scheduler.preempt()
    bench.scheduler.tick()

    assert bench.events["long"] == [Preempted(("long", 3))]
    assert bench.events["next"] == [Preempted(None)]


def test_a_device_that_fails_takes_nothing_that_is_parked_with_it(bench: Bench) -> None:
    begin_flood(bench)
    bench.submit("other", 4, poison="advance", caller=OTHER)
    bench.finish()

    assert bench.device.resets == 1
    assert bench.result("long").result == ("long", 20)
    assert steps_of(bench)["long"] == 20


def test_the_forecast_of_a_newcomer_counts_on_the_slot_that_it_gets(
    fake_device: type[FakeDevice], countdown: type[Countdown]
) -> None:
    bench = Bench(fake_device(slots=4), countdown)
    bench.step_s = 4.0  # a second for each row
    for number in range(9):
        bench.submit(f"flood {number}", 30, caller=FLOOD)
    bench.scheduler.tick()
    most = []
    for name in "abcd":  # before the next tick; of the 24 s, 21.6 s are planned with
        caller = Caller(id=name)
        most.append(bench.scheduler.max_steps_within(20, 1, 24.0, caller))
        bench.submit(name, 8, caller=caller)
    # The flood has one part of the device, each newcomer four: a step takes 5 / 4 s, 9 / 4 s and
    # 13 / 4 s, and 5 / 4 s again after the 8 steps of the others. The last waits for its slot.
    assert most == [int(21.6 / 1.25), 8 + int((21.6 - 8 * 2.25) / 1.25), int(21.6 / 3.25), 0]
    bench.finish()

    assert [bench.result(name).queue_s for name in "abc"] == [0.0] * 3
    assert bench.result("d").queue_s > 0
    assert len(parked(bench)) == 3


def test_no_step_is_lost_or_taken_twice_whoever_comes_and_goes(
    fake_device: type[FakeDevice], countdown: type[Countdown]
) -> None:
    chance = random.Random(8)
    bench = Bench(fake_device(slots=4), countdown)
    wanted: dict[str, int] = {}
    for number in range(400):
        for _ in range(chance.randrange(3)):
            name = f"{number} {chance.random()}"
            caller = Caller(
                id=chance.choice(["flood", "flood", "flood", "a", "b", "c", "d"]),
                priority=chance.choice([Priority.INTERACTIVE] * 3 + [Priority.BATCH]),
            )
            wanted[name] = chance.randrange(9)
            if bench.scheduler.load().queued < 20:
                bench.submit(name, wanted[name], stream=chance.random() < 0.3, caller=caller)
        if bench.states and chance.random() < 0.2:
            bench.cancel(chance.choice(list(bench.states)[-9:]))
        bench.scheduler.tick()
    while bench.scheduler.tick():
        pass

    taken = steps_of(bench)
    assert len(parked(bench)) > 10
    for name, state in bench.states.items():
        if state.cancelled and not bench.events[name]:
            assert taken[name] <= wanted[name]
        elif isinstance(bench.events[name][-1], Timed):
            assert taken[name] == wanted[name]
            timed = bench.result(name)
            assert timed.queue_s >= 0
            assert timed.compute_s >= 0
    assert (bench.scheduler.load().active, bench.scheduler.load().queued) == (0, 0)


@pytest.fixture
def thread() -> Iterator[DeviceThread]:
    device_thread = DeviceThread("device-under-test")
    yield device_thread
    device_thread.close()


async def test_a_deadline_passes_and_spans_show_the_wait_while_a_request_is_parked(
    fake_device: type[FakeDevice],
    countdown: type[Countdown],
    thread: DeviceThread,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "tracer", provider.get_tracer("test"))
    device = fake_device(slots=2)
    batcher: InflightBatcher[Any, Any] = InflightBatcher(device, thread, max_queued=8)

    async def run(name: str, steps: int, caller: Caller) -> Any:
        with tracing.span(name):
            request = countdown(name, steps)
            events = [each async for each in batcher.events(request, stream=True, caller=caller)]
            return events[-1].result

    endless = [asyncio.create_task(run(name, 10**9, FLOOD)) for name in ("one", "two")]
    await until(lambda: batcher.load().active == 2)
    other = asyncio.create_task(run("other", 10**9, OTHER))
    await until(lambda: (batcher.load().active, batcher.load().queued) == (2, 1))
    (lost,) = [
        task
        for task, name in zip(endless, ("one", "two"), strict=True)
        if name not in {request.name for request, _ in list(device.rows.values())}
    ]
    lost.cancel()  # as a deadline does
    await asyncio.wait([lost])
    assert batcher.load().queued == 0
    for task in (*endless, other):
        task.cancel()
    await asyncio.wait([*endless, other])
    await batcher.drain()

    spans = exporter.get_finished_spans()
    root = next(each for each in spans if each.name == f"{'one' if lost is endless[0] else 'two'}")
    parts = [
        each
        for each in spans
        if each.parent is not None
        and root.context is not None
        and each.parent.span_id == root.context.span_id
    ]
    parts.sort(key=lambda each: each.start_time or 0)
    assert [each.name for each in parts] == ["queue", "compute", "queue"]
    assert [each.end_time for each in parts[:-1]] == [each.start_time for each in parts[1:]]
