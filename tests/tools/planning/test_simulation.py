"""The simulated fleet: against the servers' own scheduler, against closed forms, and by itself."""

from itertools import pairwise

import numpy as np
import pytest

from benchmarks.inflight import (
    ADMIT_S,
    DISPATCH_S,
    LONG,
    SHORT,
    SHORT_SHARE,
    SLOTS,
    STEP_S,
    in_flight,
    poisson,
)
from tools.bench.arrivals import Arrival, Kind, poisson_arrivals
from tools.planning.demand import Demand, Work
from tools.planning.fleet import Failures, Fleet, Outcome
from tools.planning.simulation import simulate
from tools.planning.sizing import erlang_c
from tools.planning.step_times import BatchTimes, SlotTimes

ONE = Kind()
SHORT_KIND, LONG_KIND = Kind(steps=SHORT, weight=SHORT_SHARE), Kind(steps=LONG, weight=SHORT_SHARE)


def constant_steps(slots: int, step_s: float, **others: float) -> SlotTimes:
    rows = (tuple(step_s for _ in range(n + 1)) for n in range(slots + 1))
    return SlotTimes(step_s=tuple(rows), **others)


INFLIGHT = constant_steps(SLOTS, STEP_S, admit_s=ADMIT_S, dispatch_s=DISPATCH_S)


def of_the_benchmark(rate: float, count: int) -> tuple[Demand, list[Arrival], np.ndarray]:
    """Returns the requests of benchmarks/inflight.py, and what the servers' scheduler takes."""
    requests = poisson(rate, count)
    kinds = {SHORT: SHORT_KIND, LONG: LONG_KIND}
    works = {kind: Work(amounts={"base": steps}) for steps, kind in kinds.items()}
    arrivals = [
        Arrival(at_s=each.arrival_s, kind=kinds[each.steps_left], seed=0) for each in requests
    ]
    return Demand(rate=rate, works=works), arrivals, in_flight(requests).latencies_s


@pytest.mark.parametrize("rate", [5.0, 37.0, 100.0])
def test_every_request_ends_when_the_servers_scheduler_would_end_it(rate: float) -> None:
    demand, arrivals, theirs = of_the_benchmark(rate, 2000)
    fleet = {"base": (INFLIGHT, 1)}
    ours = simulate(fleet, demand, arrivals)
    np.testing.assert_allclose(ours.latency_s, theirs, rtol=0, atol=1e-9)


def test_saturated_replicas_serve_as_many_a_second_as_the_servers_scheduler() -> None:
    demand, arrivals, theirs = of_the_benchmark(200.0, 4000)
    theirs_end_s = max(each.at_s + taken for each, taken in zip(arrivals, theirs, strict=True))
    halved = [Arrival(at_s=each.at_s / 4, kind=each.kind, seed=0) for each in arrivals]
    fleet = {"base": (INFLIGHT, 4)}
    four = simulate(fleet, demand, halved)
    end_s = max(each.at_s + taken for each, taken in zip(halved, four.latency_s, strict=True))
    assert theirs_end_s / end_s == pytest.approx(4, rel=0.03)
    assert min(four.utilisation.values()) > 0.95


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_at_a_time_with_a_fixed_time_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    service_s = 0.1
    demand = Demand(rate=load / service_s, works={ONE: Work(amounts={"tokenizer": 1})})
    arrivals = poisson_arrivals([ONE], rate=demand.rate, seconds=40_000 / demand.rate, seed=1)
    times = BatchTimes(batch_s=(0.0, service_s))
    outcome = simulate({"tokenizer": (times, 1)}, demand, arrivals)
    wait_s = outcome.latency_s.mean() - service_s
    assert wait_s == pytest.approx(load * service_s / (2 * (1 - load)), rel=0.1)
    assert outcome.utilisation["tokenizer"] == pytest.approx(load, rel=0.03)


def test_slots_with_exponential_work_wait_as_erlang_says() -> None:
    slots, mean, load = 4, 40, 0.8
    stay = 1 - 1 / mean  # a geometric number of steps is nearly exponential
    steps = range(1, 6 * mean)
    works = {Kind(steps=n, weight=stay**n): Work(amounts={"base": n}) for n in steps}
    demand = Demand(rate=load * slots / mean, works=works)  # a step takes a second
    drawn = poisson_arrivals(list(works), rate=demand.rate, seconds=20_000 / demand.rate, seed=3)
    fleet = {"base": (constant_steps(slots, 1.0), 1)}
    outcome = simulate(fleet, demand, drawn)
    served = np.array([each.kind.steps for each in drawn])
    offered = demand.rate * served.mean()
    expected_s = erlang_c(slots, offered) * served.mean() / (slots - offered)
    # A request that arrives during a step waits for its end, half a step on average.
    assert (outcome.latency_s - served).mean() - 0.5 == pytest.approx(expected_s, rel=0.1)


def test_a_batch_waits_for_company_and_starts_when_it_is_full() -> None:
    demand = Demand(rate=1, works={ONE: Work(amounts={"text_encoder": 1})})
    arrivals = [Arrival(at_s=at_s, kind=ONE, seed=0) for at_s in (0.0, 0.01, 5.0, 5.002, 5.003)]
    times = BatchTimes(batch_s=(0.0, 0.1, 0.2, 0.4), max_wait_s=0.02)
    fleet = {"text_encoder": (times, 1)}
    outcome = simulate(fleet, demand, arrivals)
    np.testing.assert_allclose(outcome.latency_s, [0.22, 0.21, 0.403, 0.401, 0.4])


PICTURE = Work(
    amounts={"orchestrator": 1, "text_encoder": 1, "base": 24, "superres": 8, "tokenizer": 1}
)
PICTURES = Demand(rate=30, works={ONE: PICTURE})


def picture_fleet(base: int, others: int = 4) -> Fleet:
    batch = BatchTimes(batch_s=(0.0, 0.01, 0.012), max_wait_s=0.005)
    return {
        "orchestrator": (BatchTimes(batch_s=(0.0, 0.01)), 2),
        "text_encoder": (batch, others),
        "base": (constant_steps(4, 0.01), base),
        "superres": (constant_steps(2, 0.02), others),
        "tokenizer": (batch, others),
    }


def pictures(
    base: int = 4, *, seed: int = 0, failures: Failures | None = None, seconds: float = 60
) -> Outcome:
    arrivals = poisson_arrivals([ONE], rate=PICTURES.rate, seconds=seconds, seed=seed)
    return simulate(
        picture_fleet(base), PICTURES, arrivals, seed=seed, failures=failures or Failures()
    )


@pytest.mark.parametrize("seed", range(4))
def test_every_request_is_answered_or_lost_whatever_fails(seed: int) -> None:
    outcome = pictures(seed=seed, failures=Failures(mean_s=20.0, replace_s=3.0))
    assert outcome.failures > 10
    assert outcome.retried > 0
    assert outcome.answered + outcome.lost == outcome.requests
    assert len(outcome.latency_s) == outcome.answered
    assert outcome.lost > 0


def test_the_stages_add_up_to_the_whole() -> None:
    outcome = pictures()
    assert outcome.lost == outcome.retried == 0
    total = sum(outcome.stage_s.values())
    np.testing.assert_allclose(total, outcome.latency_s, atol=1e-9)
    alone_s = 0.01 + 0.015 + 0.24 + 0.16 + 0.015  # with company in base and superres at no cost
    assert outcome.latency_s.min() >= alone_s - 0.01  # a batch that is full does not wait


def test_a_seed_gives_the_same_run_and_another_gives_another() -> None:
    failing = Failures(mean_s=30.0, replace_s=2.0)
    first, second, other = (pictures(seed=seed, failures=failing) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.latency_s, second.latency_s)
    assert (first.events, first.lost, first.again) == (second.events, second.lost, second.again)
    assert first.percentile_s(99) != other.percentile_s(99)


def test_more_replicas_make_p99_no_worse() -> None:
    p99_s = [pictures(base).percentile_s(99) for base in (2, 3, 4, 6, 9)]
    # With short queues, which requests share a step of superres depends on when they leave base.
    assert all(later <= 1.03 * earlier for earlier, later in pairwise(p99_s))
    assert p99_s[-1] < p99_s[0]


def test_a_replica_that_fails_costs_its_calls_a_second_try_and_raises_p99() -> None:
    whole = pictures(3)
    failures = Failures(replace_s=1000.0, losses=[("base", 20.0)])
    failed = pictures(3, failures=failures)
    assert failed.failures == 1
    assert failed.again["base"] == failed.retried > 0
    assert failed.lost == 0
    assert failed.percentile_s(99) > whole.percentile_s(99)


def test_a_loss_does_not_change_how_often_replicas_fail_by_chance() -> None:
    mean_s, replace_s, seconds = 4.0, 1.0, 200.0

    def failed(losses: int) -> int:
        planned = [("base", 0.5 + each / losses) for each in range(losses)]
        failures = Failures(mean_s=mean_s, replace_s=replace_s, losses=planned)
        return pictures(6, failures=failures, seconds=seconds).failures

    expected = failed(0)
    assert failed(30) - 30 == pytest.approx(expected, rel=0.1)


def test_what_an_orchestrator_has_under_way_is_lost_with_it_and_frees_its_slots() -> None:
    failures = Failures(replace_s=1.0, losses=[("orchestrator", 20.0)])
    outcome = pictures(failures=failures)
    assert outcome.lost > 0
    assert outcome.retried == 0
    assert outcome.answered == outcome.requests - outcome.lost
    assert outcome.percentile_s(99) == pytest.approx(pictures().percentile_s(99), rel=0.1)


def test_a_stage_without_replicas_loses_requests_until_one_is_back() -> None:
    failures = Failures(replace_s=5.0, losses=3 * [("base", 10.0)])
    outcome = pictures(3, failures=failures, seconds=20)
    # Of those that come in 5 s all but the last are given up after two pauses, 0.3 s in all.
    assert outcome.lost == pytest.approx(4.7 * PICTURES.rate, rel=0.2)
    assert outcome.answered + outcome.lost == outcome.requests


def test_a_thousand_replicas_share_the_work() -> None:
    steps, step_s, load = 24, 0.02, 0.7
    demand = Demand(rate=load * 1000 / (steps * step_s), works={ONE: Work(amounts={"base": steps})})
    arrivals = poisson_arrivals([ONE], rate=demand.rate, seconds=10, seed=0)
    fleet = {"base": (constant_steps(1, step_s), 1000)}
    outcome = simulate(fleet, demand, arrivals)
    assert outcome.answered == outcome.requests > 10_000
    assert outcome.utilisation["base"] == pytest.approx(load, rel=0.08)
    assert (
        outcome.percentile_s(99) < 1.2 * steps * step_s
    )  # no request waits while a replica is free


def test_no_arrival_and_no_replica_are_refused() -> None:
    with pytest.raises(ValueError, match="arrivals: expected at least one, got none"):
        simulate(picture_fleet(1), PICTURES, [])
    with pytest.raises(ValueError, match="base: expected at least 1 replica, got 0"):
        simulate(picture_fleet(0), PICTURES, [Arrival(at_s=0.0, kind=ONE, seed=0)])
