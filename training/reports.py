"""Reports of a run: for programs a log, for people TensorBoard, and a bar or lines.

metrics.jsonl   a JSON line a report
tensorboard/    the same scalars, and the pictures
"""

import json
import math
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from training.processes import is_first
from training.resuming import open_log

DIVERGED = 4.0  # times the loss of the first report, which is that of a model that knows nothing

Metrics = Mapping[str, float | list[float | None]]


class Reports:
    """The reports of one session of a run; of several processes the first one writes them."""

    def __init__(
        self, name: str, steps: int, folder: Path, *, start: int, earlier_s: float
    ) -> None:
        """Opens the files.

        Args:
            name: Of the task.
            steps: Last step of the run.
            folder: Of the run.
            start: Steps of earlier sessions.
            earlier_s: Seconds of training in earlier sessions.
        """
        self._name, self._steps, self._start, self._earlier_s = name, steps, start, earlier_s
        self._began = time.monotonic()
        self._log = open_log(folder / "metrics.jsonl") if is_first() else None
        self._board = SummaryWriter(str(folder / "tensorboard")) if is_first() else None
        self._bar = _progress()
        self._task = self._bar.add_task(name, total=steps, completed=start, loss="")

    def __enter__(self) -> "Reports":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._log is not None and self._board is not None:
            self._log.close()
            self._board.close()

    def report(self, step: int, metrics: Metrics) -> None:
        """Writes the numbers of a step."""
        if self._log is None or self._board is None:
            return
        seconds = time.monotonic() - self._began
        line = {"step": step, "seconds": round(self._earlier_s + seconds, 1), **metrics}
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()
        for name, value in metrics.items():
            if isinstance(value, list):
                parts = {f"{name}/{at}": part for at, part in enumerate(value) if part is not None}
            else:
                parts = {name: value}
            for part, number in parts.items():
                self._board.add_scalar(part, number, step)
        self._bar.update(self._task, completed=step, loss=f"loss {metrics['loss']:.4f}")
        if not self._bar.console.is_terminal:
            scalars = ", ".join(
                f"{key} {value}" if isinstance(value, int) else f"{key} {value:.4g}"
                for key, value in metrics.items()
                if not isinstance(value, list)
            )
            step_s = seconds / (step - self._start)
            left = timedelta(seconds=round(step_s * (self._steps - step)))
            print(
                f"{self._name}: step {step} of {self._steps}, {scalars}, {step_s:.3g} s a step, "
                f"{left} left",
                flush=True,
            )

    def picture(self, step: int, picture: Image.Image) -> None:
        """Shows a picture of a step in TensorBoard."""
        if self._board is not None:
            pixels = np.asarray(picture.convert("RGB"))
            self._board.add_image("pictures", pixels, step, dataformats="HWC")


def numbers_of(metrics: Mapping[str, object]) -> dict[str, float | list[float | None]]:
    """Returns what a step reported as plain numbers, None where a bin of a list is empty (NaN)."""
    numbers: dict[str, float | list[float | None]] = {}
    for name, value in metrics.items():
        array = np.asarray(value, np.float64)
        if array.ndim:
            numbers[name] = [None if math.isnan(each) else float(each) for each in array]
        else:
            numbers[name] = float(array)
    return numbers


def fault_of(metrics: Metrics, first_loss: float | None) -> str | None:
    """Returns what is wrong with the numbers of a step, in words; None if nothing is.

    Args:
        metrics: Of `numbers_of`.
        first_loss: Of the first report of the run; None at that report itself.
    """
    broken = [
        name
        for name, value in metrics.items()
        if isinstance(value, float) and not math.isfinite(value)
    ]
    if broken:
        return f"no finite number for {', '.join(broken)}"
    loss = metrics["loss"]
    if first_loss is not None and isinstance(loss, float) and loss > DIVERGED * first_loss > 0:
        return f"a loss of {loss:.4g}, more than {DIVERGED:g} times that of the first report"
    return None


def _progress() -> Progress:
    console = Console()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal or not is_first(),
    )
