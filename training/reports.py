"""Reports of a run: a log that programs read, and a bar or lines that people read."""

import json
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.processes import is_first
from training.resuming import open_log


class Reports:
    """The reports of one session of a run; of several processes the first one writes them."""

    def __init__(self, name: str, steps: int, log: Path, *, start: int, earlier_s: float) -> None:
        """Opens the log.

        Args:
            name: Of the task.
            steps: Last step of the run.
            log: File of JSON lines, appended to.
            start: Steps of earlier sessions.
            earlier_s: Seconds of training in earlier sessions.
        """
        self._name, self._steps, self._start, self._earlier_s = name, steps, start, earlier_s
        self._began = time.monotonic()
        self._log = open_log(log) if is_first() else None
        self._bar = _progress()
        self._task = self._bar.add_task(name, total=steps, completed=start, loss="")

    def __enter__(self) -> "Reports":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._log is not None:
            self._log.close()

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes the scalars of a step: a line of the log, and the bar or a line for people."""
        if self._log is None:
            return
        seconds = time.monotonic() - self._began
        line = {"step": step, "seconds": round(self._earlier_s + seconds, 1), **metrics}
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()
        self._bar.update(self._task, completed=step, loss=f"loss {metrics['loss']:.4f}")
        if not self._bar.console.is_terminal:
            step_s = seconds / (step - self._start)
            scalars = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items())
            left = timedelta(seconds=round(step_s * (self._steps - step)))
            print(
                f"{self._name}: step {step} of {self._steps}, {scalars}, {step_s:.3g} s a step, "
                f"{left} left",
                flush=True,
            )


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
