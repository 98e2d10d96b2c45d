"""`python -m training <stage>`: trains one stage and exports its checkpoint."""

import logging
import sys
from pathlib import Path
from typing import Literal

from cyclopts import App
from rich.console import Console

from services.presets import preset as named_preset
from services.runtime.checkpoints.serialization import CheckpointError
from training import runs
from training.data.sprites import SceneDataError
from training.loop import LoopSettings, Task, train

app = App(
    name="python -m training",
    name_transform=str,  # stages are called as their packages are
    help="Trains one stage: resumable state and pictures in OUT, the checkpoint in CHECKPOINTS.",
)
console = Console()
INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: not done, to be run again


@app.command
def tokenizer(
    *,
    data: Path,
    out: Path,
    checkpoints: Path,
    preset: str = "demo",
    resolution: Literal["low", "high"],
    seed: int = 0,
    steps: int | None = None,
    initialize_from: Path | None = None,
) -> None:
    """Trains a VQGAN."""
    task = runs.tokenizer_task(
        named_preset(preset),
        data,
        resolution=resolution,
        seed=seed,
        steps=steps,
        initialize_from=initialize_from,
    )
    _train(task, task.recipe.steps, out, checkpoints / "tokenizer" / resolution, data, preset)


@app.command
def text_encoder(
    *,
    data: Path,
    out: Path,
    checkpoints: Path,
    preset: str = "demo",
    seed: int = 0,
    steps: int | None = None,
) -> None:
    """Trains a small T5 encoder by span corruption; later stages keep it frozen."""
    task = runs.text_encoder_task(named_preset(preset), data, out, seed=seed, steps=steps)
    _train(task, task.recipe.steps, out, checkpoints / "text_encoder", data, preset)


@app.command
def base(
    *,
    data: Path,
    out: Path,
    checkpoints: Path,
    preset: str = "demo",
    seed: int = 0,
    steps: int | None = None,
    precomputed: Path | None = None,
) -> None:
    """Trains the base transformer on a trained text encoder and low-resolution tokenizer."""
    task = runs.transformer_task(
        named_preset(preset),
        "base",
        data,
        checkpoints,
        seed=seed,
        steps=steps,
        precomputed=precomputed,
    )
    _train(task, task.recipe.steps, out, checkpoints / "base", data, preset)


@app.command
def superres(
    *,
    data: Path,
    out: Path,
    checkpoints: Path,
    preset: str = "demo",
    seed: int = 0,
    steps: int | None = None,
    precomputed: Path | None = None,
) -> None:
    """Trains the super-resolution transformer on the text encoder and both tokenizers."""
    task = runs.transformer_task(
        named_preset(preset),
        "superres",
        data,
        checkpoints,
        seed=seed,
        steps=steps,
        precomputed=precomputed,
    )
    _train(task, task.recipe.steps, out, checkpoints / "superres", data, preset)


def _train(task: Task, steps: int, out: Path, checkpoint: Path, data: Path, preset: str) -> None:
    run = train(task, LoopSettings(steps=steps, out=out))
    record = {
        "preset": preset,
        "steps": run.step,
        "seconds": round(run.seconds),
        "metrics": dict(run.metrics),
        "data": data.name,
        "finished": run.finished,
    }
    if run.finished:
        task.export(run.state, checkpoint, record)
        console.print(f"{task.name}: {run.step} steps, exported to {checkpoint}")
    else:
        console.print(f"{task.name}: stopped at step {run.step}; the same command goes on")
        sys.exit(INTERRUPTED)


def main() -> None:
    """Runs the command line; a mistake of the user's is one line."""
    logging.getLogger("absl").setLevel(logging.WARNING)
    try:
        app()
    except (CheckpointError, SceneDataError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
