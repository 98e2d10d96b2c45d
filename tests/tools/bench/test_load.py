"""A run: requests go out at their times whatever happens, and every end is counted."""

import asyncio
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import grpc
import pytest
from muse.common.v1.stage_pb2 import StageTiming
from muse_client import Overloaded
from rich.console import Console
from rich.table import Table

from tools.bench.arrivals import Arrival, Kind
from tools.bench.load import Outcome, run_load
from tools.bench.rendering import stage_table, summary_table, write_plot
from tools.bench.summary import summarise


class Slow:
    """Answers after a while, each request by itself; refuses kinds with guidance 0."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.most = self.running = 0

    async def send(self, kind: Kind, seed: int) -> Sequence[StageTiming]:
        if kind.guidance_scale == 0:
            raise Overloaded(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_after_s=1)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(self.seconds)
        self.running -= 1
        return [StageTiming(stage="base", queue_s=0.01, compute_s=self.seconds)]


async def test_a_slow_answer_holds_up_no_arrival() -> None:
    target = Slow(0.2)
    arrivals = [Arrival(at_s=0.01 * index, kind=Kind(), seed=index) for index in range(8)]
    outcomes = await run_load(target.send, arrivals)
    assert target.most == 8
    assert [outcome.at_s for outcome in outcomes] == [arrival.at_s for arrival in arrivals]
    assert all(0.2 <= outcome.latency_s < 1 for outcome in outcomes)


async def test_a_refusal_is_an_outcome_and_costs_no_other_request_its_own() -> None:
    kinds = [Kind(), Kind(guidance_scale=0), Kind()]
    arrivals = [Arrival(at_s=0, kind=kind, seed=0) for kind in kinds]
    outcomes = await run_load(Slow(0.01).send, arrivals)
    assert [outcome.code for outcome in outcomes] == ["OK", "RESOURCE_EXHAUSTED", "OK"]


def shown(table: Table) -> str:
    """Returns a table as a terminal of eighty columns shows it."""
    console = Console(width=80, file=io.StringIO())
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def outcome(at_s: float, latency_s: float, *, code: str = "OK", kind: str = "a") -> Outcome:
    timing = StageTiming(stage="base", queue_s=latency_s / 4, compute_s=latency_s / 2)
    timings = (timing,) if code == "OK" else ()
    return Outcome(kind=kind, at_s=at_s, latency_s=latency_s, code=code, timings=timings)


def test_a_summary_counts_goodput_to_the_last_end_and_percentiles_of_the_answered() -> None:
    run = summarise(
        [
            outcome(0.0, 1.0),
            outcome(1.0, 3.0, kind="b"),
            outcome(2.0, 0.5, code="DEADLINE_EXCEEDED"),
            outcome(3.0, 7.0),
        ],
        seconds=5,
    )
    assert run.offered_per_s == 4 / 5
    assert run.goodput_per_s == 3 / 10
    assert run.codes == {"OK": 3, "DEADLINE_EXCEEDED": 1}
    assert run.latency_s["all"][0] == 3.0
    assert run.latency_s["b"] == [3.0, 3.0, 3.0]
    assert run.queue_s["base"][0] == 0.75
    assert run.compute_s["base"][0] == 1.5
    assert run.occupancy["base"] == pytest.approx((0.5 + 1.5 + 3.5) / 10)


def test_refusals_have_their_own_percentiles_and_a_row_of_the_table() -> None:
    full = [outcome(0, seconds, code="RESOURCE_EXHAUSTED") for seconds in (0.002, 0.004, 0.006)]
    run = summarise([outcome(0, 1), outcome(0, 9, code="UNAVAILABLE"), *full], seconds=1)

    assert run.refusal_s[0] == 0.004
    assert 0.004 < run.refusal_s[2] <= 0.006
    assert run.latency_s["all"] == [1.0, 1.0, 1.0]
    assert re.search(r"3 RESOURCE_EXHAUSTED .* 4\.0 ", shown(summary_table([run])))
    assert re.search(r"1 UNAVAILABLE .* - ", shown(summary_table([run])))


def test_nothing_is_cut_off_in_eighty_columns() -> None:
    kinds = ["steps=16 superres_steps=8 guidance_scale=0.25 negative", "default"]
    answered = [outcome(0, 98.7654, kind=kind) for kind in kinds]
    run = summarise([*answered, *[outcome(0, 9, code="RESOURCE_EXHAUSTED")] * 253], seconds=0.25)
    times = {"text_encoder": [98.7654] * 3}
    loads = replace(run, queue_s=times, compute_s=times, occupancy={"text_encoder": 12.34})

    summary, stages = shown(summary_table([run])), shown(stage_table(loads))

    assert "…" not in summary + stages
    for words in ("offered/s", "goodput/s", "requests", "p50", "p95", "p99"):
        assert words in summary
    for words in ("2 of 255", "253", "RESOURCE_EXHAUSTED", *kinds[0].split(), "98765.4"):
        assert words in summary
    for words in ("text_encoder", "queue", "compute", "98765.4", "requests in it", "12.34"):
        assert words in stages


def test_a_run_without_a_single_request_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="higher rate or more seconds"):
        summarise([], seconds=1)


def test_a_run_in_which_nothing_was_answered_is_still_shown(tmp_path: Path) -> None:
    dead = summarise([outcome(0, 1, code="UNAVAILABLE")], seconds=1)
    alive = summarise([outcome(0, 1), outcome(0.5, 2)], seconds=1)
    assert "0 of 1 answered" in shown(summary_table([dead, alive]))
    assert "2 of 2 answered" in shown(summary_table([dead, alive]))
    assert stage_table(alive).row_count == 2
    write_plot([alive, dead], tmp_path, title="whole & <half>")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "bench.html").read_text()
    assert "<svg" in page
    assert "whole &amp; &lt;half&gt;" in page
    json.dumps(asdict(alive))
