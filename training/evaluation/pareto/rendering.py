"""The points of a sweep as a table of comma-separated values and as a plot."""

import csv
from collections.abc import Sequence
from pathlib import Path

from tools.bench.rendering import plotting
from training.evaluation.pareto.front import Point, pareto_front

FILES = ("pareto.csv", "pareto.png")


def write_points(points: Sequence[Point], folder: Path, *, distance: str, score: str) -> None:
    """Writes pareto.csv and pareto.png.

    Args:
        points: At least one, all with the same parameters.
        folder: Of the files.
        distance: Name of the distance, for the axis and the column.
        score: Name of the text score.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    front = pareto_front(points)
    table, picture = (folder / name for name in FILES)
    names = list(points[0].parameters)
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*names, "pictures", distance, score, "on_front"])
        for point in points:
            values = [point.parameters[name] for name in names]
            measured = [point.pictures, point.distance, point.text_score, point in front]
            writer.writerow([*values, *measured])
    pyplot = plotting()
    figure, axes = pyplot.subplots(figsize=(7, 5), layout="constrained")
    axes.scatter([p.text_score for p in points], [p.distance for p in points], s=14, color="gray")
    axes.plot([p.text_score for p in front], [p.distance for p in front], marker="o", label="front")
    for point in front:
        label = ", ".join(f"{name} {value:g}" for name, value in point.parameters.items())
        where = (point.text_score, point.distance)
        axes.annotate(label, where, xytext=(4, 4), textcoords="offset points", fontsize=6)
    axes.set(xlabel=score, ylabel=distance)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=120)
    pyplot.close(figure)
