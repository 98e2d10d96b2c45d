"""A plan as a plot: fleets that were tried, and the one planned at other loads (PNG, HTML)."""

import math
from pathlib import Path

from tools.bench.rendering import plotting, save_page
from tools.planning.fleet import chips
from tools.planning.plan import Plan
from tools.planning.sizing import PERCENT


def write_plot(plan: Plan, folder: Path, *, title: str) -> None:
    """Writes p99 against chips, p50 and p99 against load, and utilisation against load.

    Args:
        plan: What was found.
        folder: Where plan.png and plan.html go.
        title: What was asked and found.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    pyplot = plotting()
    figure, (fleets, latency, work) = pyplot.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    figure.suptitle(title)
    tried = [each for each in plan.search.tried if math.isfinite(each.p99_s)]
    fleets.scatter([chips(each.replicas) for each in tried], [each.p99_s for each in tried], s=18)
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
    for axes in (fleets, latency, work):
        axes.legend()
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    save_page(figure, folder / "plan", title=title, table=_html_table(plan))
    pyplot.close(figure)


def _html_table(plan: Plan) -> str:
    rows = ["<th>stage</th><th>replicas</th><th>at work</th><th>p50 s</th><th>p99 s</th>"]
    for stage, count in plan.replicas.items():
        percentiles = [plan.planned.stage_percentile_s(stage, each) for each in (50, PERCENT)]
        cells = [stage, count, f"{plan.planned.utilisation[stage]:.0%}"]
        cells += [f"{seconds:.3f}" for seconds in percentiles]
        rows.append("".join(f"<td>{cell}</td>" for cell in cells))
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
