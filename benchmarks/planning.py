"""Speed of the fleet simulation behind `muse plan`, by the number of replicas.

`python -m benchmarks.planning` simulates fleets of 50, 500 and 5,000 replicas at 70% load and
prints the events per second of CPU time. Each replica gets the same number of requests, so that
the events of a run grow with the fleet; a simulation that is linear in its events keeps the events
per second.
"""

import time

from tools.bench.arrivals import Kind, poisson_arrivals
from tools.planning.demand import Demand, Work
from tools.planning.fleet import Fleet
from tools.planning.simulation import simulate
from tools.planning.step_times import BatchTimes, SlotTimes, StageTimes

FLEETS = (50, 500, 5000)
REQUESTS_PER_REPLICA = 10
LOAD = 0.7
STEP_S = 0.02  # of base and superres, for 1 to 4 requests
AMOUNTS = {"orchestrator": 1, "text_encoder": 1, "base": 24, "superres": 8, "tokenizer": 1}
SHARES = {"orchestrator": 0.06, "text_encoder": 0.06, "base": 0.6, "superres": 0.2}


def fleet_of(replicas: int) -> Fleet:
    """Returns a fleet with so many replicas over all stages."""
    slots = SlotTimes(step_s=((STEP_S,) * 5,) * 5)
    batch = BatchTimes(batch_s=(0.0, 0.02, 0.03, 0.04, 0.05), max_wait_s=0.005)
    times: dict[str, StageTimes] = {
        "orchestrator": BatchTimes(batch_s=(0.0, 0.01)),
        "text_encoder": batch,
        "base": slots,
        "superres": slots,
        "tokenizer": batch,
    }
    counts = {stage: round(share * replicas) for stage, share in SHARES.items()}
    counts["tokenizer"] = replicas - sum(counts.values())
    return {name: (times[name], counts[name]) for name in AMOUNTS}


def main() -> None:
    """Prints one line a fleet."""
    kind = Kind()
    for replicas in FLEETS:
        fleet = fleet_of(replicas)
        base = fleet["base"][1]
        rate = LOAD * base * 4 / (AMOUNTS["base"] * STEP_S)
        demand = Demand(rate=rate, works={kind: Work(amounts=AMOUNTS, guided=True)})
        seconds = REQUESTS_PER_REPLICA * replicas / rate
        arrivals = poisson_arrivals([kind], rate=rate, seconds=seconds, seed=0)
        begin_s = time.process_time()
        outcome = simulate(fleet, demand, arrivals)
        taken_s = time.process_time() - begin_s
        print(
            f"{replicas:5} replicas, {rate:8.1f} requests/s: {outcome.requests:6} requests, "
            f"{outcome.events:8} events in {taken_s:6.2f} s: {outcome.events / taken_s:7.0f} a "
            f"second, {taken_s / outcome.requests * 1e6:5.0f} us a request; "
            f"p99 {outcome.percentile_s(99):.3f} s"
        )


if __name__ == "__main__":
    main()
