"""Tables for the terminal."""

import io

from muse.common.v1.stage_pb2 import StageStatus, StageTiming
from muse.orchestrator.v1.orchestrator_pb2 import GetStatusResponse, StageReport
from muse_client import GeneratedImage
from rich.console import Console
from rich.table import Table

from tools.cli.rendering import status_table, timing_table


def lines(table: Table, width: int = 200) -> list[list[str]]:
    """The cells of every printed row."""
    printed = io.StringIO()
    Console(file=printed, width=width).print(table)
    text = printed.getvalue()
    return [[cell.strip() for cell in line.split("│")] for line in text.splitlines() if "│" in line]


def picture(index: int, compute_s: float) -> GeneratedImage:
    timings = (StageTiming(stage="base", queue_s=0.002, compute_s=compute_s, transfer_s=0.0005),)
    return GeneratedImage(index=index, seed=index, file=b"", timings=timings)


def test_the_timings_are_milliseconds_and_the_mean_of_several_pictures() -> None:
    table = timing_table([picture(0, 0.1), picture(1, 0.3)], total_s=0.5)
    assert table.title == "where the time went, ms, mean of 2 pictures"
    assert ["", "base", "2.0", "200.0", "0.5", ""] in lines(table)
    assert ["", "whole request", "", "", "500.0", ""] in lines(table)


def test_the_status_says_in_80_columns_who_serves_what_on_what_and_why_not() -> None:
    names = {"encoder": "t5:62e5137a35531b0b", "low_codebook": "codebook:8f4e1a2b3c4d5e6f"}
    status = StageStatus(
        stage="base",
        preset="tiny",
        fingerprints=names,
        device="cpu x1",
        queued=3,
        active=1,
        precision="int8+float32",
        adapters={"owl": "sha256:2", "fox": "sha256:1"},
    )
    gone = "UNAVAILABLE: gone"
    table = status_table(
        GetStatusResponse(
            stages=[
                StageReport(stage="base", address="127.0.0.1:50053", serving=True, status=status),
                StageReport(stage="superres", address="127.0.0.1:50054", unavailable_reason=gone),
            ]
        )
    )
    assert lines(table, width=80) == [
        ["", "base", "tiny, int8+float32, cpu x1", "serving", ""],
        ["", "127.0.0.1:50053", f"encoder {names['encoder']}", "3 waiting, 1 active", ""],
        ["", "", "low_codebook", "", ""],
        ["", "", names["low_codebook"], "", ""],
        ["", "", "adapter fox", "", ""],
        ["", "", "adapter owl", "", ""],
        ["", "superres", "", gone, ""],
        ["", "127.0.0.1:50054", "", "", ""],
    ]
