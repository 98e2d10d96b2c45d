"""Tables and timelines for the terminal."""

from collections.abc import Sequence

from muse.orchestrator.v1.orchestrator_pb2 import GetStatusResponse
from muse_client import GeneratedImage
from rich.table import Table
from rich.text import Text

from tools.cli.waterfall import cells, total, waterfall

NAME_COLUMNS, NUMBER_COLUMNS = 14, 20
MARKS = {  # distinguishable without colours too
    "": (" ", ""),
    "queue": ("░", "yellow"),
    "compute": ("█", "blue"),
    "transfer": ("▒", "magenta"),
    "overhead": ("·", ""),
}


def timing_table(pictures: Sequence[GeneratedImage], total_s: float) -> Table:
    """Returns a table of the timings by stage, in milliseconds: the mean of a request's images."""
    mean = f", mean of {len(pictures)} pictures" if len(pictures) > 1 else ""
    table = Table("stage", title=f"where the time went, ms{mean}")
    for column in ("queue", "compute", "transfer"):
        table.add_column(column, justify="right")
    for rows in zip(*(picture.timings for picture in pictures), strict=True):
        seconds = [(row.queue_s, row.compute_s, row.transfer_s) for row in rows]
        means = [sum(column) / len(rows) for column in zip(*seconds, strict=True)]
        table.add_row(rows[0].stage, *(f"{value * 1e3:.1f}" for value in means))
    table.add_section()
    if all(picture.wall_s for picture in pictures):  # earlier servers send no wall_s
        overhead_s = sum(picture.overhead_s for picture in pictures) / len(pictures)
        table.add_row("overhead", "", "", f"{overhead_s * 1e3:.1f}")
    table.add_row("whole request", "", "", f"{total_s * 1e3:.1f}")
    return table


def waterfall_lines(picture: GeneratedImage, width: int) -> list[Text]:
    """Returns the timeline of an image as lines of bars, `width` >= 72 columns, with milliseconds.

    Raises:
        ValueError: the server is of a version that does not report its calls.
    """
    rows, wall_s = waterfall(picture), picture.wall_s
    bar = width - NAME_COLUMNS - NUMBER_COLUMNS
    after = "" if picture.iteration is None else f", after iteration {picture.iteration}"
    lines = [
        Text(f"picture {picture.index}{after}: {wall_s * 1e3:.1f} ms", style="bold"),
        Text(f"{'':{NAME_COLUMNS}}{'0':{bar - 8}}{wall_s * 1e3:>8.1f}{'ms':>10}{'device':>10}"),
    ]
    for row in (*rows, total(rows)):
        line = Text(f"{row.name:{NAME_COLUMNS}}")
        for kind in cells(row, wall_s, bar):
            line.append(*MARKS[kind])
        line.append(f"{row.total_s * 1e3:10.1f}{row.device_s * 1e3:10.1f}")
        lines.append(line)
    key = Text()
    for kind, seconds in total(rows).seconds.items():
        key.append(*MARKS[kind])
        key.append(f" {kind} {seconds * 1e3:.1f}  ")
    return [*lines, key]


def status_table(answer: GetStatusResponse) -> Table:
    """Returns a table of each stage's address, health and checkpoint, 80 columns wide."""
    table = Table("stage", "serves", "health")
    for report in answer.stages:
        status = report.status
        health = ["serving" if report.serving else report.unavailable_reason or "not serving"]
        serves = []
        if status.stage:
            health.append(f"{status.queued} waiting, {status.active} active")
            serves = [
                f"{status.preset}, {status.precision}, {status.device}",
                *(f"{role} {name}" for role, name in sorted(status.fingerprints.items())),
                *(f"adapter {name}" for name in sorted(status.adapters)),
            ]
        cells = ([report.stage, report.address], serves, health)
        table.add_row(*(Text("\n".join(lines)) for lines in cells), end_section=True)
    return table
