"""A plan as tables for the terminal, and as a plot: fleets tried, other loads (PNG, HTML)."""

import math
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from services.stages import DECODING, ORCHESTRATOR
from tools.bench.rendering import plotting, save_page
from tools.description.chips import Chip
from tools.description.rendering import scaled
from tools.planning.fleet import chips
from tools.planning.plan import Plan
from tools.planning.sizing import PERCENT, service_times
from tools.planning.step_times import Measured, SlotTimes, StageTimes


def heading(
    preset: str, chip: Chip, measured: Measured, efficiency: float, rows: int, plan: Plan
) -> list[str]:
    """Returns what was asked, what is needed, and what the times are based on, a line each."""
    demand = plan.search.demand
    mix = ", ".join(f"{share:.0%} {kind.name}" for kind, share in demand.shares.items())
    computed = [
        name for name in plan.replicas if name not in measured.stages and name != ORCHESTRATOR
    ]
    lines = [
        f"{preset} on {chip.label}: {demand.rate:g} images/s with a p99 of {plan.search.p99_s:g} s "
        f"need {chips(plan.replicas)} chips (simulated)",
        f"Mix: {mix}. Arrivals are a Poisson process.",
    ]
    target_s = plan.search.p99_s
    late = [name for name, run in plan.checks.items() if run.percentile_s(PERCENT) > target_s]
    if late:
        lines.append(f"Not in time in every run: {'; '.join(late)}.")
    if computed:
        lines.append(
            f"Times of {', '.join(computed)} are computed, not measured: {efficiency:.0%} of the "
            f"ceiling of {scaled(chip.peak_flops_per_s, 'FLOP/s')} and "
            f"{scaled(chip.bandwidth_bytes_per_s, 'B/s')} is assumed (--efficiency)."
        )
    if rows > 1 and not set(DECODING) <= measured.stages.keys():
        lines.append(
            f"A call of the network of base and superres computes {rows} decodes (--rows)."
        )
    if measured.stages:
        lines.append(f"Times of {', '.join(measured.stages)} are measured: {measured.source}.")
    if ORCHESTRATOR not in measured.stages:
        times = plan.search.sizing.times[ORCHESTRATOR]
        lines.append(
            f"The orchestrator is taken to work {_milliseconds(_full_s(times))} ms on a request: "
            "overhead and transfer in benchmarks/RESULTS.md, of small pictures on a CPU."
        )
    return lines


def rendered(
    lines: Sequence[str], plan: Plan, *, mean_failure_s: float, replace_s: float
) -> RenderableType:
    """Lays out the heading, the fleet, what each stage does in the simulation, and the runs."""
    return Group(
        Text("\n".join(lines)),
        _fleet(plan),
        _stages(plan),
        _checks(plan),
        Text("\n".join(_explanations(plan, mean_failure_s, replace_s))),
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", box=box.SIMPLE)
    table.add_column(columns[0], min_width=12)
    for column in columns[1:]:  # of numbers, which are never cut off
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _fleet(plan: Plan) -> Table:
    columns = ("stage", "full\nstep, ms", "max\nbatch", "by\nformula", "needed")
    table = _table("Replicas", *columns, "spare", "replicas", "chips")
    for stage, count in plan.replicas.items():
        times, by_formula = plan.search.sizing.times[stage], plan.search.sizing.replicas[stage]
        table.add_row(
            stage,
            _milliseconds(_full_s(times)),
            str(times.together),
            str(by_formula),
            "-" if stage == ORCHESTRATOR else str(plan.needed[stage]),
            f"+{count - (by_formula if stage == ORCHESTRATOR else plan.needed[stage])}",
            str(count),
            "-" if stage == ORCHESTRATOR else str(count),
        )
    table.add_section()
    table.add_row("all", *[""] * 5, str(sum(plan.replicas.values())), str(chips(plan.replicas)))
    return table


def _stages(plan: Plan) -> Table:
    planned = plan.planned
    table = _table(
        "Stages as planned, simulated", "stage", "at work", "places taken", "alone, s", "p50, s",
        "p99, s",
    )  # fmt: skip
    for stage in plan.replicas:
        alone = service_times(stage, plan.search.sizing.times[stage], plan.search.demand)
        table.add_row(
            stage,
            f"{planned.utilisation[stage]:.0%}",
            f"{planned.filled[stage]:.0%}",
            f"{plan.search.demand.mean(alone):.3f}",
            _seconds(planned.stage_percentile_s(stage, 50)),
            _seconds(planned.stage_percentile_s(stage, PERCENT)),
        )
    table.add_section()
    table.add_row(
        "end to end", "", "", f"{plan.search.sizing.alone_s:.3f}",
        _seconds(planned.percentile_s(50)), _seconds(planned.percentile_s(PERCENT)),
    )  # fmt: skip
    return table


def _checks(plan: Plan) -> Table:
    table = _table(
        "Runs, simulated", "fleet", "sent", "failed", "again", "lost", "p50, s",
        "p99, s", "in time",
    )  # fmt: skip
    for name, outcome in plan.checks.items():
        p99_s = outcome.percentile_s(PERCENT)
        table.add_row(
            name,
            str(outcome.requests),
            str(outcome.failures),
            str(outcome.retried),
            str(outcome.lost),
            _seconds(outcome.percentile_s(50)),
            _seconds(p99_s),
            "yes" if p99_s <= plan.search.p99_s else "no",
        )
    return table


def _explanations(plan: Plan, mean_failure_s: float, replace_s: float) -> list[str]:
    search = plan.search
    return [
        "by formula: enough slots that 1% wait too long, by Erlang's formula for M/M/c queues.",
        f"needed: the fewest whose simulated p99 over {search.seconds:.0f} s of arrivals is in "
        "time.",
        "spare: one at least, since a roll-out takes one away; enough that for 99.9% of the time",
        f"  not more are down, where each fails once in {_span(mean_failure_s)} and is back in "
        f"{_span(replace_s)};",
        "  more where the fleet is late on arrivals that it was not sized by.",
        "at work: share of the replicas' time. places taken: of slots, or of a full batch, of all",
        "  time. alone: in an empty fleet, the mean over the mix (end to end: its p99).",
        "sent: requests. failed: replicas. again: requests with a call that had to be made again.",
        f"Over time, failures make {_share(plan.retried_share)} of the requests start a stage "
        f"again, and lose {_share(plan.lost_share)}.",
        f"{search.runs} runs of a discrete-event simulation, {search.events} events. Not modelled: "
        "the network, refusals and",
        "  deadlines, edits, start-up of a replica other than as the time to replace it.",
    ]


def write_plot(plan: Plan, folder: Path, *, title: str) -> None:
    """Plots p99 against chips, and p50, p99 and utilisation against load: plan.png, plan.html.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    figure, (fleets, latency, work) = plotting().subplots(
        1, 3, figsize=(15, 4.5), layout="constrained"
    )
    tried = [(chips(fleet), p99_s) for fleet, p99_s in plan.search.tried if math.isfinite(p99_s)]
    fleets.scatter([each for each, _ in tried], [p99_s for _, p99_s in tried], s=18)
    spared = sum(plan.replicas.values()) - sum(plan.needed.values())
    fleets.set(xlabel="chips of fleets that were tried", ylabel="p99, s", yscale="log")
    fleets.axvline(
        chips(plan.replicas), color="gray", linestyle=":", label=f"planned, {spared} spare pods"
    )
    loads = [load * plan.search.demand.rate for load in plan.loads]
    for percent in (50, PERCENT):
        values = [outcome.percentile_s(percent) for outcome in plan.loads.values()]
        latency.plot(loads, values, marker="o", label=f"p{percent}")
    latency.set(xlabel="load on the planned fleet, images/s", ylabel="latency, s", yscale="log")
    for stage in plan.replicas:
        values = [outcome.utilisation[stage] for outcome in plan.loads.values()]
        work.plot(loads, values, marker="o", label=stage)
    work.set(xlabel="load on the planned fleet, images/s", ylabel="share of time at work")
    work.set_ylim(0, 1.05)
    for axes in (fleets, latency):
        axes.axhline(plan.search.p99_s, color="tab:red", linestyle="--", label="target")
    for axes in (latency, work):
        axes.axvline(plan.search.demand.rate, color="gray", linestyle=":")
    rows = [
        (
            stage,
            str(count),
            f"{plan.planned.utilisation[stage]:.0%}",
            f"{plan.planned.stage_percentile_s(stage, 50):.3f}",
            f"{plan.planned.stage_percentile_s(stage, PERCENT):.3f}",
        )
        for stage, count in plan.replicas.items()
    ]
    heads = ("stage", "replicas", "at work", "p50 s", "p99 s")
    save_page(figure, folder / "plan", title, heads, rows)


def _full_s(times: StageTimes) -> float:
    return times.step_s[-1][-1] if isinstance(times, SlotTimes) else times.batch_s[-1]


def _milliseconds(seconds: float) -> str:
    milliseconds = seconds * 1e3
    return f"{milliseconds:.3g}" if milliseconds < 1000 else f"{milliseconds:.0f}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}" if math.isfinite(seconds) else "-"


def _share(share: float) -> str:
    return f"1 in {1 / share:,.0f}" if share > 0 else "none"


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
