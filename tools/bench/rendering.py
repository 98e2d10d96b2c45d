"""Rendering of runs: tables for the terminal, and a plot of latency against load (PNG, HTML)."""

import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from tools.bench.load import OK
from tools.bench.summary import PERCENTILES, REFUSED, Summary

MILLISECONDS = 1e3


def summary_table(runs: Sequence[Summary]) -> Table:
    """Returns a table of latency, goodput and refusals by load, in milliseconds, 80 columns wide.

    Each load has a row for all answered requests, one for each of several kinds, and one for each
    status of failed requests.
    """
    table = Table("offered/s", "goodput/s", title="latency, ms, from when a request was due")
    table.add_column("requests", overflow="fold")
    for each in PERCENTILES:
        table.add_column(f"p{each}", justify="right", no_wrap=True)
    for run in runs:
        kinds = dict(run.latency_s)
        answered = f"{run.codes.get(OK, 0)} of {run.requests} answered"
        load = (f"{run.offered_per_s:.2f}", f"{run.goodput_per_s:.2f}")
        table.add_row(*load, answered, *_cells(kinds.pop("all")))
        for kind, values in kinds.items():
            table.add_row("", "", kind, *_cells(values))
        for code, count in sorted(run.codes.items()):
            if code != OK:
                values = run.refusal_s if code == REFUSED else []
                table.add_row("", "", f"{count} {code}", *_cells(values))
        table.add_section()
    return table


def stage_table(run: Summary) -> Table:
    """Returns queue, compute and occupancy of every stage at one load, in milliseconds."""
    table = Table("stage", "time", title=f"stages at {run.offered_per_s:.2f} requests/s, ms")
    for name in (*(f"p{each}" for each in PERCENTILES), "requests in it"):
        table.add_column(name, justify="right", no_wrap=True)
    for stage, queue in run.queue_s.items():
        table.add_row(stage, "queue", *_cells(queue), "")
        table.add_row("", "compute", *_cells(run.compute_s[stage]), f"{run.occupancy[stage]:.2f}")
        table.add_section()
    return table


def plotting() -> Any:
    """Returns matplotlib's pyplot, which draws into files.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        raise RuntimeError('the plot needs matplotlib: install the extra "bench"') from error
    return pyplot


def save_page(
    figure: Any, file: Path, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Writes a figure as `file`.png, and as `file`.html with a table of rows; closes the figure."""
    figure.suptitle(title, parse_math=False)
    for axes in figure.axes:
        axes.legend()
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file.with_suffix(".png"), dpi=120)
    drawing = io.StringIO()
    figure.savefig(drawing, format="svg")
    svg = drawing.getvalue()
    plotting().close(figure)
    head = "".join(f"<th>{name}</th>" for name in heads)
    lines = [f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    file.with_suffix(".html").write_text(
        f'<!doctype html><meta charset="utf-8"><title>{html.escape(title)}</title>'
        "<style>body{font:15px sans-serif;margin:2em}td,th{padding:.2em .8em;text-align:right}"
        "</style>"
        f"<h1>{html.escape(title)}</h1>{svg[svg.index('<svg') :]}"
        f"<table><tr>{head}</tr>{''.join(lines)}</table>",
        encoding="utf-8",
    )


def write_plot(runs: Sequence[Summary], folder: Path, *, title: str) -> None:
    """Writes latency against offered load as bench.png and, with the table, as bench.html.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    runs = sorted(runs, key=lambda run: run.offered_per_s)
    figure, (left, right) = plotting().subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    answered = [run for run in runs if run.latency_s["all"]]
    loads = [run.offered_per_s for run in answered]
    for index, each in enumerate(PERCENTILES):
        values = [run.latency_s["all"][index] * MILLISECONDS for run in answered]
        left.plot(loads, values, marker="o", label=f"p{each}")
    left.set(xlabel="offered load, requests/s", ylabel="latency, ms", yscale="log")
    offered = [run.offered_per_s for run in runs]
    right.plot(offered, offered, linestyle=":", color="gray", label="offered")
    right.plot(offered, [run.goodput_per_s for run in runs], marker="o", label="answered")
    right.set(xlabel="offered load, requests/s", ylabel="requests/s")
    heads = ("offered/s", "kind", *(f"p{each} ms" for each in PERCENTILES), "answered/s")
    rows = [
        (f"{run.offered_per_s:.2f}", kind, *_cells(values), f"{run.goodput_per_s:.2f}")
        for run in runs
        for kind, values in run.latency_s.items()
    ]
    save_page(figure, folder / "bench", title, heads, rows)


def _cells(seconds: Sequence[float]) -> list[str]:
    return [f"{value * MILLISECONDS:.1f}" for value in seconds] or ["-"] * len(PERCENTILES)
