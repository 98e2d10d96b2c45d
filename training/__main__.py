"""`python -m training <stage>`: trains one stage and exports its checkpoint."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from cyclopts import App, Parameter
from rich.console import Console

from services.presets import preset as named_preset
from services.runtime.checkpoints.errors import CheckpointError
from training import runs
from training.loop import LoopSettings, Task, train
from training.optimizers import Recipe
from training.recipes import RECIPES

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
    perceptual: Path | None = None,
) -> None:
    """Trains a VQGAN.

    Parameters
    ----------
    perceptual
        LPIPS file that `python -m training.perceptual convert` wrote; without one the loss has no
        perceptual part.
    """
    task = runs.tokenizer_task(
        named_preset(preset),
        data,
        resolution=resolution,
        seed=seed,
        steps=steps,
        initialize_from=initialize_from,
        perceptual=perceptual,
    )
    _train(task, task.recipe, out, checkpoints / "tokenizer" / resolution, data, preset)


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
    _train(task, task.recipe, out, checkpoints / "text_encoder", data, preset)


@dataclass(frozen=True, kw_only=True)
class TransformerFlags:
    """Flags of both transformers' commands.

    Attributes:
        data: Folder of sprites or of WebDataset tars.
        out: Folder of the run: its state, log and pictures.
        checkpoints: Root of the frozen stages; the trained one is exported there too.
        preset: System that the transformer belongs to.
        seed: Of the data, the initial parameters and the masks.
        steps: Optimizer steps instead of the recipe's.
        batch_size: Examples a step instead of the recipe's.
        learning_rate: Peak learning rate instead of the recipe's.
        precomputed: Folder of shards that `python -m training.precompute` wrote of the same data.
        workers: Processes that compose all scenes before the first step; for a GPU or TPU.
        initialize_from: Checkpoint of the same stage to start from, such as OUT/unfinished of a
            stopped run.
    """

    data: Path
    out: Path
    checkpoints: Path
    preset: str = "demo"
    seed: int = 0
    steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    precomputed: Path | None = None
    workers: int | None = None
    initialize_from: Path | None = None


Flags = Annotated[TransformerFlags, Parameter(name="*")]


@app.command
def base(flags: Flags) -> None:
    """Trains the base transformer on a trained text encoder and low-resolution tokenizer."""
    _transformer("base", flags, RECIPES[named_preset(flags.preset).name].base)


@app.command
def superres(flags: Flags) -> None:
    """Trains the super-resolution transformer on the text encoder and both tokenizers."""
    _transformer("superres", flags, RECIPES[named_preset(flags.preset).name].superres)


def _transformer(
    stage: Literal["base", "superres"], flags: TransformerFlags, recipe: Recipe
) -> None:
    recipe = runs.with_changes(
        recipe,
        steps=flags.steps,
        batch_size=flags.batch_size,
        learning_rate=flags.learning_rate,
    )
    task = runs.transformer_task(
        named_preset(flags.preset),
        stage,
        flags.data,
        flags.checkpoints,
        flags.out,
        seed=flags.seed,
        recipe=recipe,
        precomputed=flags.precomputed,
        workers=flags.workers,
        initialize_from=flags.initialize_from,
    )
    _train(task, recipe, flags.out, flags.checkpoints / stage, flags.data, flags.preset)


def _train(
    task: Task, recipe: Recipe, out: Path, checkpoint: Path, data: Path, preset: str
) -> None:
    """Trains a task, then exports the average of its snapshots; a stopped run exports into OUT."""
    settings = LoopSettings(steps=recipe.steps, out=out, snapshot_every=recipe.average_every)
    run = train(task, settings)
    params = (
        run.snapshots.average(recipe.average_decay)
        if run.snapshots.steps
        else {name: np.asarray(value) for name, value in task.params(run.state).items()}
    )
    record = {
        "preset": preset,
        "steps": run.step,
        "seconds": round(run.seconds),
        "metrics": dict(run.metrics),
        "data": data.name,
        "finished": run.finished,
    }
    if run.finished:
        task.export(params, checkpoint, record)
        console.print(f"{task.name}: {run.step} steps, exported to {checkpoint}")
    else:
        task.export(params, out / "unfinished", record)
        console.print(
            f"{task.name}: stopped at step {run.step}; the same command goes on; "
            f"{out / 'unfinished'} is its checkpoint so far"
        )
        sys.exit(INTERRUPTED)


def main() -> None:
    """Runs the command line; a mistake of the user's is one line."""
    logging.getLogger("absl").setLevel(logging.WARNING)
    try:
        app()
    except (CheckpointError, FloatingPointError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
