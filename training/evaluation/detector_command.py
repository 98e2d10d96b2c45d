"""`python -m training.evaluation detector`: how far the detector can be trusted."""

import json
from pathlib import Path

from rich.console import Console
from rich.progress import track

from training.evaluation.detector import WORST_DISTANCE
from training.evaluation.reliability import Reliability, measure_detector
from training.evaluation.testbed import Testbed, open_testbed

RELIABILITY_PICTURES = 30  # of each kind, where a report of something else begins with the detector
console = Console()


def detector(
    *,
    data: Path,
    preset: str = "demo",
    pictures: int = 200,
    worst_distance: list[float] | None = None,
    low_resolution: bool = False,
    seed: int = 0,
    out: Path = Path("out/evaluation"),
) -> None:
    """Measures the detector: composed scenes that it reads right, damaged ones that it accepts.

    Parameters
    ----------
    data
        Folder of sprites.
    preset
        System whose board, objects and size of pictures to use.
    pictures
        Of every kind and of every damage.
    worst_distance
        From a template, past which a region is not recognised; give several to compare them.
    low_resolution
        Reads pictures of the size of the base's instead of the full size.
    seed
        Of the scenes.
    out
        Folder of the report.
    """
    testbed = open_testbed(preset, data)
    reports = [
        measure_detector(
            testbed,
            pictures,
            seed=seed,
            side_px=testbed.low_side_px if low_resolution else None,
            worst_distance=distance,
        )
        for distance in track(worst_distance or [WORST_DISTANCE], "reading", console=console)
    ]
    for report in reports:
        console.print(report.table())
    out.mkdir(parents=True, exist_ok=True)
    file = out / "detector.json"
    file.write_text(json.dumps([report.as_json() for report in reports], indent=2) + "\n")
    console.print(str(file))


def print_reliability(
    testbed: Testbed, *, side_px: int | None = None, worst_distance: float | None = None
) -> Reliability:
    """Measures the detector briefly and prints it, before a report of what it reads.

    Args:
        testbed: What scenes are drawn from, and the detector.
        side_px: Of the pictures; the testbed's if None.
        worst_distance: Of the detector, in place of its own if not None.
    """
    report = measure_detector(
        testbed, RELIABILITY_PICTURES, seed=1, side_px=side_px, worst_distance=worst_distance
    )
    console.print(report.table())
    return report
