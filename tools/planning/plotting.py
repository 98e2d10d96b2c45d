"""A plan as a plot: fleets that were tried, and the one planned at other loads (PNG, HTML)."""

import math
from pathlib import Path

from tools.bench.rendering import plotting, save_page
from tools.planning.fleet import chips
from tools.planning.plan import Plan
from tools.planning.sizing import PERCENT


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
