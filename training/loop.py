"""The one training loop: batches in, checkpoints and pictures out, resumed exactly.

A task says what is learned (`Task`); the loop says when: it steps, reports, saves, restores. Every
batch is a function of (seed, step) and every random number of a step is folded from the same two,
so a run that was stopped and resumed is the run that was not.
"""

import json
import signal
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import jax
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.optimizers import Recipe
from training.resuming import (
    ResumeError,
    State,
    States,
    check_same_run,
    last_reported,
    locked,
    open_log,
)
from training.snapshots import Snapshots

Batch = Any  # a pytree of numpy arrays


class Task(Protocol):
    """What one stage learns.

    Attributes:
        recipe: Steps, batch size and optimizer.
    """

    recipe: Recipe

    @property
    def name(self) -> str:
        """What the progress bar calls it."""

    def initial_state(self) -> State:
        """Returns the state before the first step."""

    def batch(self, step: int) -> Batch:
        """Returns the batch of that step, always the same one."""

    def train_step(self, state: State, batch: Batch, step: int) -> tuple[State, Mapping[str, Any]]:
        """Takes one optimizer step; returns the new state and scalars to report."""

    def params(self, state: State) -> Mapping[str, Any]:
        """Returns the parameters of the network that is exported, arrays by dotted name."""

    def picture(self, state: State) -> Image.Image | None:
        """Draws what the model can do by now, or nothing."""

    def export(
        self, params: Mapping[str, np.ndarray], folder: Path, record: Mapping[str, Any]
    ) -> None:
        """Writes the checkpoint that the stage's server reads."""

    @property
    def shape(self) -> Mapping[str, Any]:
        """Returns what a resumed run must share with the run it resumes, as JSON."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """When the loop reports, draws and saves.

    Attributes:
        steps: Step to stop at.
        out: Folder of the run: state/ (resumable), snapshots/, pictures/, metrics.jsonl, run.json.
        report_every: Steps between reports.
        picture_every: Steps between pictures.
        save_every: Steps between saved states.
        snapshot_every: Steps between the snapshots that the exported parameters average.
    """

    steps: int
    out: Path
    report_every: int = 20
    picture_every: int = 500
    save_every: int = 500
    snapshot_every: int = 5000

    def __post_init__(self) -> None:
        for name in ("steps", "report_every", "picture_every", "save_every", "snapshot_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a run ended.

    Attributes:
        state: The last state.
        snapshots: Those of the parameters.
        step: Steps taken, those of earlier sessions included.
        finished: Whether it reached the last step; False if a signal stopped it.
        metrics: The last reported scalars.
        seconds: Seconds of training, earlier sessions included.
    """

    state: State
    snapshots: Snapshots
    step: int
    finished: bool
    metrics: Mapping[str, float]
    seconds: float


class _StopOnSignal:
    """Notes SIGTERM and SIGINT, so that the loop saves before it ends."""

    def __enter__(self) -> "_StopOnSignal":
        self.stopped = False
        self._before = {
            kind: signal.signal(kind, self._note) for kind in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True

    def __exit__(self, *_: object) -> None:
        for kind, handler in self._before.items():
            signal.signal(kind, handler)


def train(task: Task, settings: LoopSettings) -> Run:
    """Trains a task to its last step, from its last saved state if there is one.

    SIGTERM or SIGINT saves the state and returns with finished=False.

    Args:
        task: What is learned.
        settings: When to report, draw and save.

    Raises:
        FloatingPointError: the loss is no longer finite; the last saved state is kept.
        OSError: a state or snapshot cannot be written; those written before are kept.
        ResumeError: the folder holds a run of another task, shape or data, or of more steps;
            none of its states can be read; or another process trains there.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    with locked(settings.out):
        check_same_run(settings.out / "run.json", {"task": task.name, **task.shape})
        # Closing waits for a save in progress: an error must not leave half a state behind.
        with closing(States(settings.out / "state")) as states:
            return _run(task, settings, states)


def _run(task: Task, settings: LoopSettings, states: States) -> Run:
    saved = states.restore(jax.eval_shape(task.initial_state))
    start, state, earlier_seconds = saved or (0, task.initial_state(), 0.0)
    if start > settings.steps:
        raise ResumeError(
            f"{settings.out} holds a run of {start} steps already, more than the {settings.steps} "
            "that are asked for: ask for more, or give another --out"
        )
    snapshots = Snapshots(settings.out / "snapshots")
    snapshots.discard_after(start)
    began, metrics = time.monotonic(), last_reported(settings.out / "metrics.jsonl")
    step = start
    with (
        _StopOnSignal() as signals,
        ThreadPoolExecutor(max_workers=1) as composer,
        _progress() as progress,
        open_log(settings.out / "metrics.jsonl") as log,
    ):
        bar = progress.add_task(task.name, total=settings.steps, completed=start, loss="")
        following = composer.submit(task.batch, start)
        while step < settings.steps and not signals.stopped:
            batch = following.result()
            following = composer.submit(task.batch, step + 1)
            state, reported = task.train_step(state, batch, step)
            step += 1
            if step % settings.report_every == 0 or step == settings.steps:
                metrics = {name: float(value) for name, value in reported.items()}
                if not all(map(_finite, metrics.values())):
                    raise FloatingPointError(f"{task.name}: step {step} gave {metrics}")
                seconds = earlier_seconds + time.monotonic() - began
                log.write(json.dumps({"step": step, "seconds": round(seconds, 1), **metrics}))
                log.write("\n")
                log.flush()
                progress.update(bar, completed=step, loss=f"loss {metrics['loss']:.4f}")
                if not progress.console.is_terminal:
                    step_s = (time.monotonic() - began) / (step - start)
                    print(_line(task.name, step, settings.steps, metrics, step_s), flush=True)
            if step % settings.picture_every == 0 or step == settings.steps:
                _draw(task, state, settings.out / "pictures", step)
            if step % settings.snapshot_every == 0:
                snapshots.save(step, task.params(state))
            if step % settings.save_every == 0:
                states.save(step, state, earlier_seconds + time.monotonic() - began)
    seconds = earlier_seconds + time.monotonic() - began
    states.save(step, state, seconds)
    return Run(
        state=state,
        snapshots=snapshots,
        step=step,
        finished=step >= settings.steps,
        metrics=metrics,
        seconds=seconds,
    )


def _draw(task: Task, state: State, folder: Path, step: int) -> None:
    picture = task.picture(state)
    if picture is not None:
        folder.mkdir(exist_ok=True)
        picture.save(folder / f"step-{step:07d}.png")


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")


def _line(name: str, step: int, steps: int, metrics: Mapping[str, float], step_s: float) -> str:
    """Returns a report for a log, where no progress bar is seen."""
    scalars = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items())
    left = timedelta(seconds=round(step_s * (steps - step)))
    return f"{name}: step {step} of {steps}, {scalars}, {step_s:.3g} s a step, {left} left"


def _progress() -> Progress:
    console = Console()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
