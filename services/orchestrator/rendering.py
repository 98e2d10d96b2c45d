"""Tables for the terminal."""

from collections.abc import Sequence

from muse.orchestrator.v1.orchestrator_pb2 import GetStatusResponse
from rich.table import Table

from services.orchestrator.client import Picture


def timing_table(pictures: Sequence[Picture], total_s: float) -> Table:
    """Returns where the time went, stage by stage, in milliseconds.

    Args:
        pictures: Those of one request; of several the mean is shown.
        total_s: What the whole request took.
    """
    mean = f", mean of {len(pictures)} pictures" if len(pictures) > 1 else ""
    table = Table("stage", title=f"where the time went, ms{mean}")
    for column in ("queue", "compute", "transfer"):
        table.add_column(column, justify="right")
    for rows in zip(*(picture.timings for picture in pictures), strict=True):
        seconds = [(row.queue_s, row.compute_s, row.transfer_s) for row in rows]
        means = [sum(column) / len(rows) for column in zip(*seconds, strict=True)]
        table.add_row(rows[0].stage, *(f"{value * 1e3:.1f}" for value in means))
    table.add_section()
    table.add_row("whole request", "", "", f"{total_s * 1e3:.1f}")
    return table


def status_table(answer: GetStatusResponse) -> Table:
    """Returns one row a stage: where it is, how it is, what it serves, on what, how precisely."""
    table = Table(
        "stage", "address", "health", "preset", "fingerprints", "device", "precision", "queue"
    )
    for report in answer.stages:
        status = report.status
        health = "serving" if report.serving else report.problem or "not serving"
        names = "\n".join(f"{role} {name}" for role, name in sorted(status.fingerprints.items()))
        queue = f"{status.queued} waiting, {status.active} active" if status.stage else ""
        table.add_row(
            report.stage,
            report.address,
            health,
            status.preset,
            names,
            status.device,
            status.precision,
            queue,
        )
    return table
