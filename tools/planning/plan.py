"""The plan: the smallest fleet, spares for what fails, and runs that say what it then does."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.stages import ORCHESTRATOR
from tools.planning.demand import Demand
from tools.planning.fleet import Failures, Outcome, chips, resized
from tools.planning.search import Search, run_seconds
from tools.planning.sizing import PERCENT, floor_s, size
from tools.planning.step_times import StageTimes

RARELY = 0.001  # of the time may more replicas of a stage be down than it has spares
GROWTH, MOST_ROUNDS = 0.02, 10  # of a fleet that is late on arrivals it was not sized by
AS_PLANNED = "as planned, failures by chance"  # name of a check
LOADS = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5)  # of the rate, for the plot


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How many replicas, and what simulations say of them.

    Attributes:
        search: What is asked, what the arithmetic said, and the fleets that were simulated.
        floor_s: p99 over the mix of a request alone, with the sizes of batch that are best so.
        needed: Replicas by stage that keep the target in the simulation.
        replicas: The same with spares.
        checks: Runs of the two by name; the second is of the fleet as planned, on another seed.
        loads: The fleet as planned at other loads, by share of the rate.
        retried_share: Of all requests: made again since a replica failed.
        lost_share: Of all requests: lost since an orchestrator failed.
    """

    search: Search
    floor_s: float
    needed: Mapping[str, int]
    replicas: Mapping[str, int]
    checks: Mapping[str, Outcome]
    loads: Mapping[float, Outcome]
    retried_share: float
    lost_share: float

    @property
    def planned(self) -> Outcome:
        """The run of the fleet as planned."""
        return self.checks[AS_PLANNED]

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain data; every latency is simulated."""
        planned, demand, sizing = self.planned, self.search.demand, self.search.sizing
        return {
            "simulated": True,
            "images_per_second": demand.rate,
            "mix": {kind.name: share for kind, share in demand.shares.items()},
            "p99_target_s": self.search.p99_s,
            "floor_s": self.floor_s,
            "chips": chips(self.replicas),
            "stages": {
                stage: {
                    "replicas": count,
                    "needed": self.needed[stage],
                    "by_arithmetic": sizing.replicas[stage],
                    "chips": 0 if stage == ORCHESTRATOR else count,
                    "max_batch_size": sizing.times[stage].together,
                    "utilisation": planned.utilisation[stage],
                    "filled": planned.filled[stage],
                    "p50_s": _finite(planned.stage_percentile_s(stage, 50)),
                    "p99_s": _finite(planned.stage_percentile_s(stage, PERCENT)),
                }
                for stage, count in self.replicas.items()
            },
            "checks": {name: _summary(outcome) for name, outcome in self.checks.items()},
            "loads": {
                str(load * demand.rate): _summary(outcome) for load, outcome in self.loads.items()
            },
            "tried": [
                {"replicas": replicas, "p99_s": _finite(p99_s)}
                for replicas, p99_s in self.search.tried
            ],
            "retried_share": self.retried_share,
            "lost_share": self.lost_share,
        }


def make_plan(
    options: Mapping[str, Sequence[StageTimes]],
    demand: Demand,
    *,
    p99_s: float,
    mean_failure_s: float,
    replace_s: float,
    requests: int,
    seed: int,
) -> Plan:
    """Finds the smallest fleet, adds spares and simulates both.

    Args:
        options: Times of each stage with every size of batch it may have, in the order in which
            requests pass the stages.
        demand: What is asked.
        p99_s: In which 99% are to be answered.
        mean_failure_s: Mean time between failures of a replica.
        replace_s: Time until one that failed is back.
        requests: At least so many arrive in a run.
        seed: Of everything drawn.

    Raises:
        ValueError: the target is below what a request takes alone, no fleet keeps it, or more
            requests would arrive in a run than can be simulated.
    """
    floor = floor_s(options, demand)
    if p99_s <= floor:
        raise ValueError(
            f"p99: {p99_s:g} s cannot be kept: alone in the fleet, a request takes {floor:.3g} s "
            f"already; ask for a longer one, fewer steps (--mix steps=12), another chip, or name a "
            "higher --efficiency if you measured one"
        )
    seconds = run_seconds(demand, p99_s, requests)
    sizing = size(options, demand, p99_s)
    if sizing is None:
        raise ValueError(
            f"p99: {p99_s:g} s leaves no time to wait: a request takes {floor:.3g} s alone, and "
            "with its batch full more than that; ask for a longer one or a smaller --max-batch-size"
        )
    search = Search(sizing=sizing, demand=demand, p99_s=p99_s, seconds=seconds, seed=seed)
    doors = sizing.replicas.get(ORCHESTRATOR, 0)
    needed = search.smallest(doors and doors + spares(doors, mean_failure_s, replace_s))
    with_spares = resized(needed, lambda count: count + spares(count, mean_failure_s, replace_s))
    by_chance = Failures(mean_s=mean_failure_s, replace_s=replace_s)
    replicas, planned = _in_time(search, with_spares, seed + 1, by_chance)
    amid = search.warm_up_s + (search.seconds - search.warm_up_s) / 3
    one_each = Failures(replace_s=replace_s, losses=[(stage, amid) for stage in replicas])
    failing = search.run(replicas, seed=seed + 1, failures=one_each)
    checks = {
        "without spares, all up": search.run(needed),
        AS_PLANNED: planned,
        "as planned, one of each stage fails": failing,
    }
    loads = {load: search.run(replicas, load=load, seed=seed + 1) for load in LOADS}
    each_s = mean_failure_s * demand.rate
    return Plan(
        search=search,
        floor_s=floor,
        needed=needed,
        replicas=replicas,
        checks=checks,
        loads=loads,
        retried_share=sum(count * failing.again[stage] for stage, count in replicas.items())
        / each_s,
        lost_share=replicas.get(ORCHESTRATOR, 0) * failing.lost / each_s,
    )


def _in_time(
    search: Search, replicas: dict[str, int], seed: int, failures: Failures
) -> tuple[dict[str, int], Outcome]:
    """Adds replicas until a fleet is in time on arrivals that it was not sized by.

    Returns:
        The fleet, and its run, which is late only where more of them do not help.
    """
    outcome = search.run(replicas, seed=seed, failures=failures)
    for _ in range(MOST_ROUNDS):
        if search.in_time(outcome):
            break
        replicas = resized(replicas, lambda count: count + math.ceil(GROWTH * count))
        outcome = search.run(replicas, seed=seed, failures=failures)
    return replicas, outcome


def spares(needed: int, mean_failure_s: float, replace_s: float) -> int:
    """Returns how many replicas a stage has besides those it needs, at least one.

    One may always be missing: a roll-out takes a pod away before the next one starts. More are
    needed where so many replicas fail, each independently, that fewer than `needed` would be up for
    more than 0.1% of the time.
    """
    down = replace_s / (mean_failure_s + replace_s)
    for extra in itertools.count(1):
        count = needed + extra
        at_most_extra_down = sum(
            math.comb(count, each) * down**each * (1 - down) ** (count - each)
            for each in range(extra + 1)
        )
        if 1 - at_most_extra_down <= RARELY:
            break
    return extra


def _summary(outcome: Outcome) -> dict[str, Any]:
    return {
        "p50_s": _finite(outcome.percentile_s(50)),
        "p99_s": _finite(outcome.percentile_s(PERCENT)),
        "requests": outcome.requests,
        "answered": outcome.answered,
        "lost": outcome.lost,
        "retried": outcome.retried,
        "failures": outcome.failures,
        "utilisation": dict(outcome.utilisation),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
