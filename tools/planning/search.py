"""The smallest fleet whose simulated p99 is in time."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from services.stages import ORCHESTRATOR
from tools.bench.arrivals import poisson_arrivals
from tools.planning.demand import Demand
from tools.planning.fleet import NO_FAILURES, Failures, Outcome, resized
from tools.planning.simulation import simulate
from tools.planning.sizing import PERCENT, Sizing

WARM_UP_TARGETS = 5  # times the target that requests arrive before any is counted
LEAST_TARGETS = 30  # times the target that requests arrive at least
LOST_SHARE = 1 - PERCENT / 100  # lost requests are late: a fleet that loses more fails
MOST_GROWTH = 16.0
MOST_REQUESTS = 10_000_000  # of a run, which would take hours and the memory for it

_arrivals = lru_cache(maxsize=1)(poisson_arrivals)  # most runs are of one load with one seed


def run_seconds(demand: Demand, p99_s: float, requests: int) -> float:
    """Returns how long requests arrive in a run, so that at least `requests` do.

    Raises:
        ValueError: more would arrive than can be simulated.
    """
    seconds = max(requests / demand.rate, LEAST_TARGETS * p99_s)
    if demand.rate * seconds > 1.01 * MOST_REQUESTS:
        raise ValueError(
            f"images_per_second: a run for a p99 of {p99_s:g} s takes {seconds:g} s, in which "
            f"{demand.rate * seconds:.3g} requests would arrive: expected {MOST_REQUESTS} at most; "
            "ask for fewer a second or for a shorter p99"
        )
    return seconds


@dataclass(kw_only=True)
class Search:
    """Simulates fleets for one load.

    Attributes:
        sizing: Times of each stage's replicas, and the numbers to begin with.
        demand: The load.
        p99_s: The target.
        seconds: How long requests arrive in a run.
        seed: Of every run while fleets are compared, so that chance favours none.
        tried: Fleets that were simulated, in that order, with their p99 in seconds.
        runs: Simulated so far.
        events: That all of them took.
    """

    sizing: Sizing
    demand: Demand
    p99_s: float
    seconds: float
    seed: int
    tried: list[tuple[Mapping[str, int], float]] = field(default_factory=list)
    runs: int = 0
    events: int = 0

    @property
    def warm_up_s(self) -> float:
        """How long of a run they are not counted."""
        return WARM_UP_TARGETS * self.p99_s

    def run(
        self,
        replicas: Mapping[str, int],
        *,
        load: float = 1.0,
        seed: int | None = None,
        failures: Failures = NO_FAILURES,
    ) -> Outcome:
        """Simulates a fleet, by default with the search's seed, at a share `load` of its rate."""
        chosen = self.seed if seed is None else seed
        demand = replace(self.demand, rate=load * self.demand.rate)
        outcome = simulate(
            {stage: (times, replicas[stage]) for stage, times in self.sizing.times.items()},
            demand,
            _arrivals(tuple(demand.works), rate=demand.rate, seconds=self.seconds, seed=chosen),
            seed=chosen,
            failures=failures,
            warm_up_s=self.warm_up_s,
        )
        self.runs += 1
        self.events += outcome.events
        return outcome

    def in_time(self, outcome: Outcome) -> bool:
        """Returns whether a run has kept the target; requests that were lost are late."""
        few_lost = outcome.lost <= LOST_SHARE * outcome.requests
        return few_lost and outcome.percentile_s(PERCENT) <= self.p99_s

    def smallest(self, orchestrators: int) -> dict[str, int]:
        """Returns the smallest numbers of replicas that keep the target, one stage at a time.

        The arithmetic's are scaled until they do, then those of each stage are reduced as far as it
        goes with the others as they are, most replicas first. Orchestrators (0 if the fleet has
        none) are as many as will be, spares as well: the more there are, the less each knows of
        what the others have sent where.

        Raises:
            ValueError: no fleet of a reasonable size does.
        """
        begun = dict(self.sizing.replicas)
        if orchestrators:
            begun[ORCHESTRATOR] = orchestrators
        enough = self._grown(begun)
        searched = sorted(enough.keys() - {ORCHESTRATOR}, key=lambda each: (-enough[each], each))
        for stage in searched:
            low, high = 1, enough[stage]
            while low < high:
                middle = (low + high) // 2
                if self._keeps(enough | {stage: middle}):
                    high = middle
                else:
                    low = middle + 1
            enough[stage] = high
        return enough

    def _grown(self, replicas: dict[str, int]) -> dict[str, int]:
        if self._keeps(replicas):
            return replicas
        low = factor = 1.0
        while not self._keeps(_scaled(replicas, factor := 1.5 * factor)):
            low = factor
            if factor > MOST_GROWTH:
                raise ValueError(
                    f"p99: no fleet keeps {self.p99_s:g} s: simulated, even {factor:.0f} times the "
                    f"replicas that the work needs take {self.tried[-1][1]:.3g} s, since some "
                    "requests meet another one that a second orchestrator has sent to the same "
                    "replica; ask for a longer one, fewer steps, a faster chip or a smaller preset"
                )
        high = factor
        while high - low > 0.05:
            middle = (low + high) / 2
            if self._keeps(_scaled(replicas, middle)):
                high = middle
            else:
                low = middle
        return _scaled(replicas, high)

    def _keeps(self, replicas: Mapping[str, int]) -> bool:
        outcome = self.run(replicas)
        self.tried.append((dict(replicas), outcome.percentile_s(PERCENT)))
        return self.in_time(outcome)


def _scaled(replicas: Mapping[str, int], factor: float) -> dict[str, int]:
    return resized(replicas, lambda count: math.ceil(factor * count))
