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
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import count

import numpy as np

from services.orchestrator.calls import FIRST_PAUSE_S, TRIES
from services.stages import ORCHESTRATOR
from tools.bench.arrivals import Arrival
from tools.planning.balance import Balance
from tools.planning.demand import Demand
from tools.planning.fleet import NO_FAILURES, Failures, FleetStage, Outcome
from tools.planning.replicas import Call, Replica, new_replica


class _Event(IntEnum):
    CALL = 0  # of a request
    WAKE = 1  # of a replica
    LOSE = 2
    REPLACE = 3


@dataclass(eq=False, slots=True)
class _Request:
    arrival_s: float
    door: int  # the orchestrator it is with
    amounts: Sequence[int]
    works: Sequence[int]
    guided: int
    draw: float
    stage: int = 0
    begun_s: float = 0.0  # of the call of this stage
    tries: int = 0
    retried: bool = False
    lost: bool = False
    done_s: float | None = None
    replica: int = 0
    call: Call | None = None
    stage_s: list[float] = field(default_factory=list)


class _Stage:
    def __init__(self, stage: FleetStage, doors: int, chance: random.Random) -> None:
        self.name, self.times = stage.name, stage.times
        self.replicas: list[Replica] = [new_replica(stage.times) for _ in range(stage.replicas)]
        self.epochs = [0] * stage.replicas  # what is to happen to an earlier one does not
        self.up = [True] * stage.replicas
        self.again = 0
        orders = [chance.sample(range(stage.replicas), stage.replicas) for _ in range(doors)]
        self.balances = [Balance(order) for order in orders]


def simulate(
    fleet: Sequence[FleetStage],
    demand: Demand,
    arrivals: Sequence[Arrival],
    *,
    seed: int = 0,
    failures: Failures = NO_FAILURES,
    warm_up_s: float = 0.0,
) -> Outcome:
    """Runs requests through a fleet until the last of them has ended.

    Args:
        fleet: The stages in the order requests pass them. If the first is the orchestrator, it
            chooses for the others; else one chooses for all.
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
    for stage in fleet:
        if stage.replicas < 1:
            raise ValueError(f"{stage.name}: expected at least 1 replica, got {stage.replicas}")
    return _Run(fleet, demand, arrivals, seed, failures).outcome(warm_up_s)


class _Run:
    def __init__(
        self,
        fleet: Sequence[FleetStage],
        demand: Demand,
        arrivals: Sequence[Arrival],
        seed: int,
        failures: Failures,
    ) -> None:
        self._has_doors = fleet[0].name == ORCHESTRATOR
        doors = fleet[0].replicas if self._has_doors else 1
        orders = random.Random(f"{seed} orders")
        self._stages = [_Stage(stage, doors, orders) for stage in fleet]
        self._horizon_s = arrivals[-1].at_s
        self._failures = failures
        self._chance = random.Random(f"{seed} failures")
        draws = random.Random(f"{seed} doors")
        asked = {
            kind: (
                [work.amounts[stage.name] for stage in fleet],
                [work.calls_for(stage.name) for stage in fleet],
                int(work.guided),
            )
            for kind, work in demand.works.items()
        }
        self._requests = [
            _Request(each.at_s, 0, *asked[each.kind], draw=draws.random()) for each in arrivals
        ]
        self._heap: list[tuple[float, int, int, int, int, int]] = []
        self._order = count()
        self._under_way: list[set[int]] = [set() for _ in range(doors)]
        self._failed = self._events = 0
        self._plan_failures()
        self._play()

    def _plan_failures(self) -> None:
        for index, stage in enumerate(self._stages):
            for replica in range(len(stage.replicas)):
                self._plan_failure(0.0, index, replica)
        names = [stage.name for stage in self._stages]
        for loss in self._failures.losses:
            self._push(loss.at_s, _Event.LOSE, names.index(loss.stage), -1, -1)

    def _plan_failure(self, now_s: float, stage: int, replica: int) -> None:
        if self._failures.mean_s is None:
            return
        at_s = now_s + self._chance.expovariate(1 / self._failures.mean_s)
        if at_s < self._horizon_s:
            self._push(at_s, _Event.LOSE, stage, replica, 0)

    def _push(self, at_s: float, event: _Event, stage: int, index: int, epoch: int) -> None:
        heapq.heappush(self._heap, (at_s, next(self._order), event, stage, index, epoch))

    def _play(self) -> None:
        heap, arrived, total = self._heap, 0, len(self._requests)
        while heap or arrived < total:
            self._events += 1
            if arrived < total and (not heap or self._requests[arrived].arrival_s <= heap[0][0]):
                self._enter(arrived)
                arrived += 1
                continue
            now_s, _, event, stage, index, epoch = heapq.heappop(heap)
            if event == _Event.WAKE:
                if epoch == self._stages[stage].epochs[index]:
                    self._wake(now_s, stage, index)
            elif event == _Event.CALL:
                self._call(now_s, index)
            elif event == _Event.LOSE:
                self._lose(now_s, stage, index)
            else:
                self._replace(now_s, stage, index)

    def _enter(self, index: int) -> None:
        request = self._requests[index]
        request.begun_s = request.arrival_s
        if self._has_doors:
            up = self._stages[0].up
            open_doors = range(len(up)) if all(up) else [door for door, on in enumerate(up) if on]
            if not open_doors:
                request.lost = True
                return
            request.door = open_doors[int(request.draw * len(open_doors))]
        self._under_way[request.door].add(index)
        self._call(request.arrival_s, index)

    def _call(self, now_s: float, index: int) -> None:
        request = self._requests[index]
        if request.lost:
            return
        stage = self._stages[request.stage]
        if self._has_doors and request.stage == 0:
            replica: int | None = request.door
        else:
            replica = stage.balances[request.door].choose(request.works[request.stage])
        if replica is None:
            self._again(now_s, index)
            return
        call = Call(index, request.amounts[request.stage], request.guided, now_s)
        request.call, request.replica = call, replica
        self._schedule(request.stage, replica, stage.replicas[replica].arrive(now_s, call))

    def _schedule(self, stage: int, replica: int, at_s: float | None) -> None:
        if at_s is not None:
            epochs = self._stages[stage].epochs
            epochs[replica] += 1
            self._push(at_s, _Event.WAKE, stage, replica, epochs[replica])

    def _wake(self, now_s: float, stage: int, replica: int) -> None:
        ended, next_s = self._stages[stage].replicas[replica].wake(now_s)
        self._schedule(stage, replica, next_s)
        for call in ended:
            self._answer(now_s, call.request)

    def _answer(self, now_s: float, index: int) -> None:
        request = self._requests[index]
        self._release(request)
        request.stage_s.append(now_s - request.begun_s)
        request.stage += 1
        request.begun_s, request.tries = now_s, 0
        if request.stage < len(self._stages):
            self._call(now_s, index)
        else:
            request.done_s = now_s
            self._under_way[request.door].discard(index)

    def _release(self, request: _Request) -> None:
        request.call = None
        if not self._has_doors or request.stage > 0:
            balance = self._stages[request.stage].balances[request.door]
            balance.end(request.replica, request.works[request.stage])

    def _again(self, now_s: float, index: int) -> None:
        """Makes a call again after a pause, or gives the request up."""
        request = self._requests[index]
        request.tries += 1
        if request.tries >= TRIES:
            request.lost = True
            self._under_way[request.door].discard(index)
            return
        request.retried = True
        self._stages[request.stage].again += 1
        pause_s = FIRST_PAUSE_S * 2 ** (request.tries - 1)
        self._push(now_s + pause_s, _Event.CALL, request.stage, index, 0)

    def _lose(self, now_s: float, index: int, replica: int) -> None:
        stage = self._stages[index]
        if replica < 0:  # the first that is up and has something to lose, or else any that is up
            up = [each for each, on in enumerate(stage.up) if on]
            busy = {
                request.replica
                for request in self._requests
                if request.call is not None and request.stage == index
            }
            replica = next((each for each in up if each in busy), up[0] if up else -1)
        else:  # by chance, which does not know what happened before
            self._plan_failure(now_s, index, replica)
        if replica < 0 or not stage.up[replica]:
            return
        self._failed += 1
        stage.up[replica] = False
        stage.epochs[replica] += 1
        calls = stage.replicas[replica].lose()
        self._push(now_s + self._failures.replace_s, _Event.REPLACE, index, replica, 0)
        if self._has_doors and index == 0:
            self._lose_door(now_s, replica)
            return
        for balance in stage.balances:
            balance.lose(replica)
        for call in calls:
            self._release(self._requests[call.request])
            self._again(now_s, call.request)

    def _lose_door(self, now_s: float, door: int) -> None:
        for index in self._under_way[door]:
            request = self._requests[index]
            request.lost = True
            if request.call is None or request.stage == 0:
                continue
            at = self._stages[request.stage].replicas[request.replica]
            self._schedule(request.stage, request.replica, at.abandon(now_s, request.call))
            self._release(request)
        self._under_way[door].clear()

    def _replace(self, now_s: float, index: int, replica: int) -> None:
        stage = self._stages[index]
        stage.up[replica] = True
        for balance in stage.balances:
            balance.gain(replica)

    def outcome(self, warm_up_s: float) -> Outcome:
        """Sums the run up."""
        done = [each for each in self._requests if each.done_s is not None]
        counted = [each for each in done if each.arrival_s >= warm_up_s]
        ends = [each.done_s or 0.0 for each in done]
        span_s = max(self._horizon_s, *ends) if ends else self._horizon_s
        shares = {
            stage.name: (
                sum(each.busy_s for each in stage.replicas) / (span_s * len(stage.replicas)),
                sum(each.filled_s for each in stage.replicas) / (span_s * len(stage.replicas)),
            )
            for stage in self._stages
        }
        return Outcome(
            latency_s=np.array([(each.done_s or 0.0) - each.arrival_s for each in counted]),
            stage_s={
                stage.name: np.array([each.stage_s[index] for each in counted])
                for index, stage in enumerate(self._stages)
            },
            utilisation={name: busy for name, (busy, _) in shares.items()},
            filled={name: filled for name, (_, filled) in shares.items()},
            requests=len(self._requests),
            answered=len(done),
            lost=sum(each.lost for each in self._requests),
            retried=sum(each.retried for each in self._requests),
            again={stage.name: stage.again for stage in self._stages},
            failures=self._failed,
            events=self._events,
        )
