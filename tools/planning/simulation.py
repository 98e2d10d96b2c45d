"""A fleet in virtual time: requests arrive by themselves, pass the stages, and replicas fail.

A request goes to an orchestrator at random and from there through the other stages in order; every
orchestrator chooses replicas by what it has outstanding itself. A replica that fails is noticed at
once: its calls are made again elsewhere, from their start, after the orchestrator's pause and as
often as it tries; it is back, empty, after the time to replace. What an orchestrator that fails had
under way is lost.

Not modelled: the network, deadlines and refusals (whoever waits, waits), edits, roll-outs.
"""

import heapq
import random
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from math import nan

import numpy as np

from services.orchestrator.calls import FIRST_PAUSE_S, TRIES
from services.stages import ORCHESTRATOR
from tools.bench.arrivals import Arrival
from tools.planning.balance import Balance
from tools.planning.demand import Demand
from tools.planning.fleet import NO_FAILURES, Failures, Fleet, Outcome
from tools.planning.replicas import Call, new_replica
from tools.planning.step_times import StageTimes


@dataclass(eq=False, slots=True)
class _Request:
    index: int
    orchestrator: int
    calls: Sequence[tuple[int, int, int]]  # steps, rows and work of each stage
    stage: int = 0
    tries: int = 0
    retried: bool = False
    lost: bool = False
    replica: int = 0
    call: Call | None = None


class _Stage:
    def __init__(
        self, name: str, times: StageTimes, replicas: int, orchestrators: int, seed: int
    ) -> None:
        if replicas < 1:
            raise ValueError(f"{name}: expected at least 1 replica, got {replicas}")
        self.replicas = [new_replica(times) for _ in range(replicas)]
        self.epochs = [0] * replicas  # an event of an earlier epoch no longer happens
        self.up = [True] * replicas
        self.again = 0
        self.balances = [
            Balance(_shuffled(replicas, f"{seed} order of {name} for {each}"))
            for each in range(orchestrators)
        ]


def simulate(
    fleet: Fleet,
    demand: Demand,
    arrivals: Sequence[Arrival],
    *,
    seed: int = 0,
    failures: Failures = NO_FAILURES,
    warm_up_s: float = 0.0,
) -> Outcome:
    """Runs requests through a fleet until the last of them has ended.

    Args:
        fleet: If its first stage is the orchestrator, it chooses for the others; else one chooses
            for all.
        demand: What kinds ask.
        arrivals: What is asked when, in order of time; at least one.
        seed: Of which orchestrator a request goes to, and of what fails when.
        failures: How replicas fail.
        warm_up_s: Requests that arrive before are not counted in latencies.

    Raises:
        ValueError: there is no arrival, or a stage has no replica.
    """
    if not arrivals:
        raise ValueError("arrivals: expected at least one, got none")
    return _Run(fleet, demand, arrivals, seed, failures).play(warm_up_s)


class _Run:
    def __init__(
        self,
        fleet: Fleet,
        demand: Demand,
        arrivals: Sequence[Arrival],
        seed: int,
        failures: Failures,
    ) -> None:
        self._has_orchestrators = next(iter(fleet)) == ORCHESTRATOR
        orchestrators = fleet[ORCHESTRATOR][1] if self._has_orchestrators else 1
        self._named = {
            name: _Stage(name, times, replicas, orchestrators, seed)
            for name, (times, replicas) in fleet.items()
        }
        self._stages = list(self._named.values())
        self._arrivals, self._failures = arrivals, failures
        self._chance = random.Random(f"{seed} failures")
        self._draws = random.Random(f"{seed} doors")
        self._calls = {
            kind: [work.call_of(stage) for stage in fleet] for kind, work in demand.works.items()
        }
        self._heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._order = count()  # of events at the same time
        self._requests: dict[int, _Request] = {}  # under way
        self._ends_s = [array("d", [nan]) * len(arrivals) for _ in fleet]  # of every request's call
        self._failed = self._lost = self._retried = self._events = 0

    def play(self, warm_up_s: float) -> Outcome:
        """Plays all events in order of time."""
        for stage in self._stages:
            for replica in range(len(stage.replicas)):
                self._plan_failure(0.0, stage, replica)
        for name, at_s in self._failures.losses:
            self._push(at_s, self._lose_some, self._named[name])
        heap = self._heap
        for index, arrival in enumerate(self._arrivals):
            while heap and heap[0][0] < arrival.at_s:
                self._next()
            self._events += 1
            self._enter(index, arrival)
        while heap:
            self._next()
        return self._outcome(warm_up_s)

    def _next(self) -> None:
        self._events += 1
        now_s, _, happen, arguments = heapq.heappop(self._heap)
        happen(now_s, *arguments)

    def _push(self, at_s: float, happen: Callable[..., None], *arguments: object) -> None:
        heapq.heappush(self._heap, (at_s, next(self._order), happen, arguments))

    def _enter(self, index: int, arrival: Arrival) -> None:
        orchestrator, draw = 0, self._draws.random()
        if self._has_orchestrators:
            up = self._stages[0].up
            choices = range(len(up)) if all(up) else [each for each, on in enumerate(up) if on]
            if not choices:
                self._lost += 1
                return
            orchestrator = choices[int(draw * len(choices))]
        request = _Request(index, orchestrator, self._calls[arrival.kind])
        self._requests[index] = request
        self._call(arrival.at_s, request)

    def _lose_request(self, request: _Request) -> None:
        request.lost = True
        self._lost += 1
        del self._requests[request.index]

    def _call(self, now_s: float, request: _Request) -> None:
        if request.lost:
            return
        stage, (steps, rows, work) = self._stages[request.stage], request.calls[request.stage]
        if self._is_own(request):
            replica: int | None = request.orchestrator
        else:
            replica = stage.balances[request.orchestrator].choose(work)
        if replica is None:
            self._again(now_s, request)
            return
        request.replica, request.call = replica, Call(request.index, steps, rows)
        self._schedule(stage, replica, stage.replicas[replica].arrive(now_s, request.call))

    def _is_own(self, request: _Request) -> bool:
        """Returns whether a request's stage is its orchestrator, which does the work itself."""
        return self._has_orchestrators and not request.stage

    def _schedule(self, stage: _Stage, replica: int, at_s: float | None) -> None:
        if at_s is not None:
            stage.epochs[replica] += 1
            event = self._wake, (stage, replica, stage.epochs[replica])
            heapq.heappush(self._heap, (at_s, next(self._order), *event))

    def _wake(self, now_s: float, stage: _Stage, replica: int, epoch: int) -> None:
        if epoch != stage.epochs[replica]:
            return
        ended, next_s = stage.replicas[replica].wake(now_s)
        self._schedule(stage, replica, next_s)
        for call in ended:
            request = self._requests[call.request]
            self._release(request)
            self._ends_s[request.stage][request.index] = now_s
            request.stage += 1
            request.tries = 0
            if request.stage < len(self._stages):
                self._call(now_s, request)
            else:
                del self._requests[request.index]

    def _release(self, request: _Request) -> None:
        request.call = None
        if not self._is_own(request):
            balance = self._stages[request.stage].balances[request.orchestrator]
            balance.end(request.replica, request.calls[request.stage][2])

    def _again(self, now_s: float, request: _Request) -> None:
        """Makes a call again after a pause, or gives the request up."""
        request.tries += 1
        if request.tries >= TRIES:
            self._lose_request(request)
            return
        self._retried += not request.retried
        request.retried = True
        self._stages[request.stage].again += 1
        self._push(now_s + FIRST_PAUSE_S * 2 ** (request.tries - 1), self._call, request)

    def _plan_failure(self, now_s: float, stage: _Stage, replica: int) -> None:
        if self._failures.mean_s is None:
            return
        at_s = now_s + self._chance.expovariate(1 / self._failures.mean_s)
        if at_s < self._arrivals[-1].at_s:
            self._push(at_s, self._lose_by_chance, stage, replica)

    def _lose_by_chance(self, now_s: float, stage: _Stage, replica: int) -> None:
        self._plan_failure(now_s, stage, replica)  # whether it is up does not matter to chance
        if stage.up[replica]:
            self._lose(now_s, stage, replica)

    def _lose_some(self, now_s: float, stage: _Stage) -> None:
        """Loses the first replica that is up and has something to lose, or else any that is up."""
        called = {
            each.replica
            for each in self._requests.values()
            if each.call and self._stages[each.stage] is stage
        }
        up = [each for each, on in enumerate(stage.up) if on]
        for replica in ([each for each in up if each in called] or up)[:1]:
            self._lose(now_s, stage, replica)

    def _lose(self, now_s: float, stage: _Stage, replica: int) -> None:
        self._failed += 1
        stage.up[replica] = False
        stage.epochs[replica] += 1
        calls = stage.replicas[replica].fail()
        self._push(now_s + self._failures.replace_s, self._replace, stage, replica)
        if self._has_orchestrators and stage is self._stages[0]:
            self._lose_requests(now_s, replica)
            return
        for balance in stage.balances:
            balance.lose(replica)
        for call in calls:
            request = self._requests[call.request]
            self._release(request)
            self._again(now_s, request)

    def _lose_requests(self, now_s: float, orchestrator: int) -> None:
        """Loses the requests of an orchestrator, and cancels their calls of other stages."""
        for request in list(self._requests.values()):
            if request.orchestrator != orchestrator:
                continue
            self._lose_request(request)
            if request.call is not None and not self._is_own(request):
                stage = self._stages[request.stage]
                at_s = stage.replicas[request.replica].cancel(now_s, request.call)
                self._schedule(stage, request.replica, at_s)
                self._release(request)

    def _replace(self, _: float, stage: _Stage, replica: int) -> None:
        stage.up[replica] = True
        for balance in stage.balances:
            balance.gain(replica)

    def _outcome(self, warm_up_s: float) -> Outcome:
        times_s = np.array([[each.at_s for each in self._arrivals], *self._ends_s])
        arrivals_s, done_s = times_s[0], times_s[-1]
        counted = times_s[:, ~np.isnan(done_s) & (arrivals_s >= warm_up_s)]
        span_s = float(np.nanmax(times_s[[0, -1]]))
        stages_s = np.diff(counted, axis=0)
        utilisation, filled = (
            {
                name: sum(getattr(each, seconds) for each in stage.replicas)
                / (span_s * len(stage.replicas))
                for name, stage in self._named.items()
            }
            for seconds in ("busy_s", "filled_s")
        )
        return Outcome(
            latency_s=counted[-1] - counted[0],
            stage_s=dict(zip(self._named, stages_s, strict=True)),
            utilisation=utilisation,
            filled=filled,
            requests=len(self._arrivals),
            answered=int(np.count_nonzero(~np.isnan(done_s))),
            lost=self._lost,
            retried=self._retried,
            again={name: stage.again for name, stage in self._named.items()},
            failures=self._failed,
            events=self._events,
        )


def _shuffled(total: int, seed: str) -> Iterator[int]:
    """Yields 0 to total - 1 in random order, and draws no more of it than is asked for.

    A fleet has an order for each orchestrator and stage, of which a run uses a few entries.

    Source: Fisher and Yates's shuffle, on an array of which only the moved entries are kept.
    """
    chance, moved = random.Random(seed), dict[int, int]()
    for last in range(total - 1, -1, -1):
        drawn = int(chance.random() * (last + 1))
        yield moved.get(drawn, drawn)
        moved[drawn] = moved.pop(last, last)
