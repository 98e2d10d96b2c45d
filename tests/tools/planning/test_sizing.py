"""Numbers of replicas by arithmetic, and spares."""

import math
from typing import Any

import pytest

from tools.bench.arrivals import Kind
from tools.description.chips import chip
from tools.planning.demand import Demand, Work
from tools.planning.fleet import NO_FAILURES, Outcome, chips
from tools.planning.plan import _in_time, make_plan, spares
from tools.planning.rendering import heading
from tools.planning.search import Search
from tools.planning.sizing import erlang_c, floor_s, late_share, size
from tools.planning.step_times import BatchTimes, Measured, SlotTimes

ONE = Kind()


def slots(count: int, step_s: float) -> SlotTimes:
    """All slots are computed together: more of them take longer in proportion."""
    rows = tuple(tuple(count * step_s for _ in range(n + 1)) for n in range(count + 1))
    return SlotTimes(step_s=rows)


def demand(rate: float, steps: int = 10) -> Demand:
    return Demand(rate=rate, works={ONE: Work(amounts={"base": steps, "tokenizer": 1})})


def test_erlang_c_is_the_formula() -> None:
    assert erlang_c(1, 0.6) == pytest.approx(0.6)  # one server: it waits if it is busy
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)
    servers, offered = 12, 9.5
    waiting = offered**servers / math.factorial(servers) * servers / (servers - offered)
    others = sum(offered**each / math.factorial(each) for each in range(servers))
    assert erlang_c(servers, offered) == pytest.approx(waiting / (others + waiting))


def test_the_share_that_waits_longer_falls_with_time_and_with_servers() -> None:
    shares = [late_share(10, 80, 0.1, wait_s) for wait_s in (0.0, 0.05, 0.2)]
    assert shares[0] == pytest.approx(erlang_c(10, 8))
    assert shares == sorted(shares, reverse=True)
    assert late_share(11, 80, 0.1, 0.05) < shares[1]
    assert late_share(8, 80, 0.1, 60.0) == 1.0  # as much work as servers: the queue grows


def test_replicas_are_enough_for_the_work_and_no_more_than_a_shorter_target_needs() -> None:
    options = {"base": [slots(1, 0.1)]}
    long, short = (size(options, demand(20.0), p99_s) for p99_s in (5.0, 1.2))
    assert long is not None
    assert short is not None
    assert 20 < long.replicas["base"] <= short.replicas["base"]
    assert long.alone_s == pytest.approx(1.0)


def test_slots_that_only_make_all_wait_are_not_taken_and_those_that_pay_are() -> None:
    together = SlotTimes(step_s=((0.1,) * 2,) * 9)  # 8 rows in the time of one
    for options, chosen in (([slots(1, 0.1), slots(8, 0.1)], 1), ([slots(1, 0.1), together], 8)):
        sizing = size({"base": options}, demand(20.0), 5.0)
        assert sizing is not None
        assert sizing.times["base"].together == chosen


def test_the_floor_is_what_the_99th_percent_of_the_mix_takes_alone() -> None:
    works = {
        Kind(steps=steps, weight=weight): Work(amounts={"base": steps, "tokenizer": 1})
        for steps, weight in ((4, 98), (20, 2))
    }
    tokenizer = BatchTimes(batch_s=(0.0, 0.05), max_wait_s=0.01)
    options = {"base": [slots(1, 0.1)], "tokenizer": [tokenizer]}
    assert floor_s(options, Demand(rate=1, works=works)) == pytest.approx(2.06)
    rarer = dict(zip((Kind(weight=995), Kind(steps=20, weight=5)), works.values(), strict=True))
    assert floor_s(options, Demand(rate=1, works=rarer)) == pytest.approx(0.46)


def test_there_is_a_spare_and_more_where_much_fails() -> None:
    month_s = 30 * 86400.0
    assert spares(1, month_s, 300.0) == 1
    assert spares(20, month_s, 300.0) == 1
    often = [spares(needed, 3600.0, 300.0) for needed in (1, 10, 100)]
    assert often == sorted(often)
    assert often[-1] > 100 * 300 / 3900


def test_a_target_below_the_floor_says_the_floor_and_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"p99: 0.5 s cannot be kept: alone .* takes 1 s already"):
        make_plan(
            {"base": [slots(1, 0.1)]},
            demand(20.0),
            p99_s=0.5,
            mean_failure_s=1e6,
            replace_s=300.0,
            requests=1000,
            seed=0,
        )


def test_a_target_that_only_an_empty_fleet_keeps_says_so() -> None:
    slow_in_company = SlotTimes(step_s=((0.0,), (0.1, 0.1), (0.3, 0.3, 0.3)))
    with pytest.raises(ValueError, match="leaves no time to wait"):
        make_plan(
            {"base": [slow_in_company]},
            demand(20.0),
            p99_s=1.5,
            mean_failure_s=1e6,
            replace_s=300.0,
            requests=1000,
            seed=0,
        )


def test_a_plan_keeps_the_target_with_the_fewest_and_has_spares() -> None:
    plan = make_plan(
        {"base": [slots(1, 0.1)], "tokenizer": [BatchTimes(batch_s=(0.0, 0.02))]},
        demand(10.0),
        p99_s=1.3,
        mean_failure_s=1e6,
        replace_s=300.0,
        requests=2000,
        seed=0,
    )
    assert plan.checks["without spares, all up"].percentile_s(99) <= 1.3
    for stage in plan.needed:  # one fewer was tried, with as many of the others or more, and failed
        fewer = [
            p99_s
            for replicas, p99_s in plan.search.tried
            if replicas[stage] == plan.needed[stage] - 1
        ]
        assert all(p99_s > 1.3 for p99_s in fewer)
    tried = [replicas["base"] for replicas, _ in plan.search.tried]
    assert plan.needed["base"] - 1 in tried
    assert plan.replicas == {stage: count + 1 for stage, count in plan.needed.items()}
    assert plan.planned.percentile_s(99) <= 1.3
    assert chips(plan.replicas) == sum(plan.replicas.values())
    failing = plan.checks["as planned, one of each stage fails"]
    assert failing.failures == 2
    assert plan.retried_share > 0
    assert plan.lost_share == 0  # no orchestrator in it


def test_a_fleet_that_is_late_on_other_arrivals_has_more_than_its_spares() -> None:
    class Late(Search):
        """Takes two fleets for late, whatever they do."""

        def in_time(self, outcome: Outcome) -> bool:
            return len(asked) > 2

        def run(self, replicas: Any, **others: Any) -> Outcome:
            asked.append(dict(replicas))
            return super().run(replicas, **others)

    asked: list[dict[str, int]] = []
    options = {"orchestrator": [BatchTimes(batch_s=(0.0, 0.01))]}
    options |= {"base": [slots(1, 0.1)]}
    works = {ONE: Work(amounts={"orchestrator": 1, "base": 10})}
    load = Demand(rate=10.0, works=works)
    sizing = size(options, load, 5.0)
    assert sizing is not None
    search = Late(sizing=sizing, demand=load, p99_s=5.0, seconds=150, seed=0)

    found, outcome = _in_time(search, {"orchestrator": 2, "base": 60}, 1, NO_FAILURES)

    assert [each["base"] for each in asked] == [60, 62, 64]  # 2% more, rounded up, each time
    assert found == asked[-1] == {"orchestrator": 2, "base": 64}
    assert outcome.answered == outcome.requests


def test_what_hardly_anything_keeps_is_planned_and_said_to_be_late() -> None:
    works = {ONE: Work(amounts={"orchestrator": 1, "base": 10})}
    plan = make_plan(
        {
            "orchestrator": [BatchTimes(batch_s=(0.0, 0.01))],
            "base": [slots(1, 0.1)],
        },
        Demand(rate=10.0, works=works),
        p99_s=1.9,
        mean_failure_s=20.0,  # every replica all the time
        replace_s=1.0,
        requests=1000,
        seed=0,
    )
    lines = heading("tiny", chip("v5e"), Measured(source="", stages={}), 0.5, 4, plan)
    assert plan.planned.percentile_s(99) > 1.9
    assert any("computes 4 decodes (--rows)" in each for each in lines)
    assert any("Not in time in every run: as planned, failures by chance" in each for each in lines)
