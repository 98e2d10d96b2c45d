"""Simulated replicas against the servers' own scheduler and batcher, in virtual time.

Both sides share their policy; these tests hold what is around it to the same arrivals, admissions,
cancellations and ends.
"""

import asyncio
import random
from collections.abc import Callable, Collection
from typing import Any

import pytest

from services.runtime.scheduling.batching import Batcher
from services.runtime.scheduling.device_thread import DeviceThread
from services.runtime.scheduling.scheduler import SlotScheduler
from services.runtime.wire.timing import Timed
from tools.planning.replicas import Call, Replica, new_replica
from tools.planning.step_times import BatchTimes, SlotTimes

Action = tuple[float, str, int]  # time, "arrive" or "cancel", request


class TimedSlots:
    """A device whose steps move a virtual clock by the planner's times, and compute nothing."""

    def __init__(self, times: SlotTimes, calls: list[Call]) -> None:
        self.times, self.calls, self.now_s = times, calls, 0.0
        self.slots, self.rows_at_once, self.device_to_host_s = times.together, 1, 0.0
        self.running: dict[int, Call] = {}
        self.admitted: list[int] = []

    def admit(self, slot: int, request: Call, state: None = None) -> None:
        self.running[slot] = request
        self.admitted.append(request.request)
        self.now_s += self.times.admit_s

    def advance(
        self, steps: int, wanted: Collection[int], resting: Collection[int] = ()
    ) -> dict[int, None]:
        guided = sum(call.rows == 2 for call in self.running.values())
        step_s = self.times.step_s[len(self.running)][guided]
        self.now_s += self.times.dispatch_s + steps * step_s
        for slot in wanted:
            del self.running[slot]
        return dict.fromkeys(wanted)

    def release(self, slot: int) -> None:
        del self.running[slot]

    def reset(self) -> None:
        raise AssertionError("the device failed")


def recorded(seed: int, requests: int, rate: float) -> tuple[list[Call], list[Action]]:
    """Returns requests of several lengths, their arrivals, and some cancellations."""
    chance = random.Random(seed)
    calls = [Call(i, chance.choice((3, 8, 24)), chance.choice((1, 2))) for i in range(requests)]
    actions, now_s = list[Action](), 0.0
    for index in range(requests):
        now_s += chance.expovariate(rate)
        actions.append((now_s, "arrive", index))
        if chance.random() < 0.2:
            actions.append((now_s + chance.expovariate(rate / 3), "cancel", index))
    return calls, sorted(actions)


def simulated(replica: Replica, calls: list[Call], actions: list[Action]) -> dict[int, float]:
    """Returns when each request ended, in that order."""
    ends_s, wake_s = dict[int, float](), float("inf")
    waiting = list(actions)
    while waiting or wake_s < float("inf"):
        if waiting and waiting[0][0] <= wake_s:
            now_s, what, index = waiting.pop(0)
            happen = replica.arrive if what == "arrive" else replica.cancel
            next_s = None if index in ends_s else happen(now_s, calls[index])
            wake_s = wake_s if next_s is None else next_s
            continue
        now_s = wake_s
        ended, next_s = replica.wake(now_s)
        wake_s = float("inf") if next_s is None else next_s
        ends_s |= {call.request: now_s for call in ended}
    return ends_s


def scheduled(
    times: SlotTimes, calls: list[Call], actions: list[Action]
) -> tuple[dict[int, float], list[int]]:
    """Returns when each request ended by the servers' scheduler, and the order of admission."""
    device, ends_s, states = TimedSlots(times, calls), dict[int, float](), dict[int, Any]()
    scheduler: SlotScheduler[Call, None] = SlotScheduler(
        device, max_queued=10 * len(calls), clock=lambda: device.now_s
    )

    def end(index: int) -> Callable[[object], None]:
        def callback(event: object) -> None:
            assert isinstance(event, Timed)
            if device.now_s < gone_s.get(index, float("inf")):
                ends_s[index] = device.now_s

        return callback

    waiting, gone_s = (
        list(actions),
        {index: at_s for at_s, what, index in actions if what == "cancel"},
    )
    while waiting or scheduler.busy:
        if not scheduler.busy:
            device.now_s = max(device.now_s, waiting[0][0])
        while waiting and waiting[0][0] <= device.now_s:
            _, what, index = waiting.pop(0)
            if what == "arrive":
                states[index] = scheduler.submit(calls[index], end(index), stream=False)
            else:
                scheduler.cancel(states[index])
        scheduler.tick()
    return ends_s, device.admitted


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("slots", "step_s", "dispatch_s"), [(1, 0.004, 0.0), (4, 0.003, 0.001), (4, 0.03, 0.0)]
)
def test_requests_are_admitted_and_end_as_by_the_servers_scheduler(
    slots: int, step_s: float, dispatch_s: float, seed: int
) -> None:
    rows = (tuple((n + 0.5 * g) * step_s for g in range(n + 1)) for n in range(slots + 1))
    times = SlotTimes(step_s=tuple(rows), admit_s=0.002, dispatch_s=dispatch_s)
    calls, actions = recorded(seed, 400, rate=0.8 / (12 * 1.25 * step_s))
    theirs, admitted = scheduled(times, calls, actions)
    replica = new_replica(times)
    ours = simulated(replica, calls, actions)
    assert 200 < len(theirs) < len(calls)
    assert list(ours) == list(theirs)
    assert [index for index in ours if index not in admitted] == []
    assert ours == pytest.approx(theirs, abs=1e-9)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    now_s = 0.0

    def time(self) -> float:
        return self.now_s

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.now_s = max(self.now_s, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class TimedDevice(DeviceThread):
    """Runs a function at once, then takes the time of its batch."""

    def __init__(self, times: BatchTimes) -> None:
        self.times, self.batches = times, list[list[int]]()

    def compute(self, batch: list[Call]) -> list[int]:
        self.batches.append([call.request for call in batch])
        return self.batches[-1]

    async def run(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        taken_s = self.times.seconds(len(self.batches[-1]))
        await asyncio.sleep(taken_s)
        return result, taken_s


@pytest.mark.parametrize("seed", range(5))
def test_batches_start_and_end_as_by_the_servers_batcher(seed: int) -> None:
    times = BatchTimes(batch_s=(0.0, 0.02, 0.03, 0.05), max_wait_s=0.015)
    calls, actions = recorded(seed, 300, rate=40.0)
    calls = [Call(call.request, 0, 1) for call in calls]
    device, ends_s, loop = TimedDevice(times), dict[int, float](), VirtualLoop()

    async def play() -> None:
        batcher = Batcher(
            device.compute,
            device,
            max_batch_size=times.together,
            max_wait_s=times.max_wait_s,
            max_queued=len(calls),
            clock=loop.time,
        )
        tasks: dict[int, asyncio.Task[None]] = {}

        async def submit(index: int) -> None:
            await batcher.submit(calls[index])
            ends_s[index] = loop.time()

        for at_s, what, index in actions:
            await asyncio.sleep(at_s - loop.time())
            if what == "arrive":
                tasks[index] = loop.create_task(submit(index))
            else:
                tasks[index].cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        await batcher.drain()

    loop.run_until_complete(play())
    loop.close()
    ours = simulated(new_replica(times), calls, actions)
    assert 200 < len(ends_s) < len(calls)
    assert {len(batch) for batch in device.batches} == {1, 2, 3}
    assert list(ours) == list(ends_s)
    assert ours == pytest.approx(ends_s, abs=1e-9)
