"""Tables for the terminal."""

import io

from muse.common.v1.stage_pb2 import StageStatus, StageTiming
from muse.orchestrator.v1.orchestrator_pb2 import GetStatusResponse, StageReport
from PIL import Image
from rich.console import Console
from rich.table import Table

from services.orchestrator.client import Picture
from services.orchestrator.rendering import status_table, timing_table


def lines(table: Table) -> list[list[str]]:
    """The cells of every printed row."""
    printed = io.StringIO()
    Console(file=printed, width=200).print(table)
    text = printed.getvalue()
    return [[cell.strip() for cell in line.split("│")] for line in text.splitlines() if "│" in line]


def picture(index: int, compute_s: float) -> Picture:
    timings = (StageTiming(stage="base", queue_s=0.002, compute_s=compute_s, transfer_s=0.0005),)
    return Picture(index, index, Image.new("RGB", (1, 1)), b"", timings, ())


def test_the_timings_are_milliseconds_and_the_mean_of_several_pictures() -> None:
    table = timing_table([picture(0, 0.1), picture(1, 0.3)], total_s=0.5)
    assert table.title == "where the time went, ms, mean of 2 pictures"
    assert ["", "base", "2.0", "200.0", "0.5", ""] in lines(table)
    assert ["", "whole request", "", "", "500.0", ""] in lines(table)


def test_the_status_says_who_serves_what_on_what_and_why_not() -> None:
    status = StageStatus(
        stage="base",
        preset="tiny",
        fingerprints={"encoder": "t5:1", "codebook": "codebook:2"},
        device="cpu x1",
        queued=3,
        active=1,
        precision="int8+float32",
    )
    rows = lines(
        status_table(
            GetStatusResponse(
                stages=[
                    StageReport(stage="base", address="a:1", serving=True, status=status),
                    StageReport(stage="superres", address="b:2", problem="UNAVAILABLE: gone"),
                ]
            )
        )
    )
    serving = ["", "base", "a:1", "serving", "tiny", "codebook codebook:2", "cpu x1"]
    assert [*serving, "int8+float32", "3 waiting, 1 active", ""] in rows
    assert ["", "superres", "b:2", "UNAVAILABLE: gone", "", "", "", "", "", ""] in rows
