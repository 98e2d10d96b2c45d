"""A page of a run: its numbers over the steps, and its pictures, in one file without a server."""

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

SHOWN = 8  # pictures, the last ones


def write_report(folder: Path) -> Path:
    """Writes report.html into the folder of a run, from metrics.jsonl, run.json and pictures/.

    Args:
        folder: Of the run.

    Returns:
        The file.

    Raises:
        FileNotFoundError: the folder holds no run, or one that has not reported yet.
    """
    lines = _lines(folder / "metrics.jsonl")
    if not lines:
        raise FileNotFoundError(f"expected the reports of a run in {folder}/metrics.jsonl")
    what = json.loads((folder / "run.json").read_text())
    pictures = sorted((folder / "pictures").glob("*.png"))[-SHOWN:]
    steps = [line["step"] for line in lines]
    names = [name for name in lines[-1] if name not in ("step", "seconds")]
    charts = [_chart(name, steps, [line.get(name) for line in lines]) for name in names]
    shown = [
        f"<figure><figcaption>{each.stem}</figcaption><img src='data:image/png;base64,"
        f"{base64.b64encode(each.read_bytes()).decode()}'></figure>"
        for each in reversed(pictures)
    ]
    title = f"{what['task']}: step {steps[-1]}, {lines[-1]['seconds'] / 3600:.2f} h"
    page = (
        "<!doctype html><meta charset='utf-8'>"
        f"<title>{html.escape(title)}</title><style>body{{font-family:sans-serif;margin:2em}}"
        "figure{display:inline-block;margin:0 1em 1em 0}img{max-width:100%}</style>"
        f"<h1>{html.escape(title)}</h1>{''.join(charts)}{''.join(shown)}"
        f"<pre>{html.escape(json.dumps(what, indent=2))}</pre>"
    )
    file = folder / "report.html"
    file.write_text(page, encoding="utf-8")
    return file


def _lines(log: Path) -> list[Mapping[str, Any]]:
    """Returns the reports by their steps, of a step that was taken again the later one."""
    by_step: dict[int, Mapping[str, Any]] = {}
    for line in log.read_text().splitlines() if log.is_file() else []:
        try:
            report = json.loads(line)
        except json.JSONDecodeError:  # cut short as a process died
            continue
        by_step[report["step"]] = report
    return [by_step[step] for step in sorted(by_step)]


def _chart(name: str, steps: Sequence[int], values: Sequence[Any]) -> str:
    """Returns a line chart as SVG; a number that is a list has a line for each of its parts."""
    figure = Figure(figsize=(4.5, 2.5), layout="constrained")
    axes = figure.add_subplot(title=name, xlabel="step")
    parts = max((len(value) if isinstance(value, list) else 1 for value in values), default=1)
    for part in range(parts):
        line = [value[part] if isinstance(value, list) else value for value in values]
        known = [
            (step, value) for step, value in zip(steps, line, strict=True) if value is not None
        ]
        label = f"{part / parts:.0%} to {(part + 1) / parts:.0%}" if parts > 1 else None
        axes.plot(*zip(*known, strict=True) if known else ([], []), label=label, linewidth=1)
    if parts > 1:
        axes.legend(fontsize="x-small")
    svg = io.StringIO()
    figure.savefig(svg, format="svg")
    drawing = svg.getvalue()
    return f"<figure>{drawing[drawing.index('<svg') :]}</figure>"
