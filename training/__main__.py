"""`python -m training <stage>`: trains one stage and exports its checkpoint."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from cyclopts import App, Parameter
from rich.console import Console

from services.presets import preset as named_preset
from services.runtime.checkpoints.errors import CheckpointError
from training import runs
from training.data.captioned.log import SKIPPED_FILE, skipped_names
from training.data.sources import NO_DATA_FLAGS, DataFlags
from training.loop import LoopSettings, Task, train
from training.recipe_changes import NO_CHANGES, RecipeChanges

app = App(
    name="python -m training",
    name_transform=str,  # stages are called as their packages are
    help="Trains one stage: resumable state and pictures in OUT, the checkpoint in CHECKPOINTS.",
)
console = Console()
INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: not done, to be run again


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """Flags of every command.

    Attributes:
        data: Folder of sprites; or folder or URL (gs://, s3://) of WebDataset tars, Parquet files,
            ArrayRecord files or pictures with captions.
        out: Folder of the run: its state, log and pictures.
        checkpoints: Root of the frozen stages; the trained one is exported there too.
        preset: System that the stage belongs to.
        seed: Of the data, the initial parameters and all chance of the training.
    """

    data: str
    out: Path
    checkpoints: Path
    preset: str = "demo"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class TransformerFlags:
    """Further flags of both transformers' commands.

    Attributes:
        precomputed: Folder of shards that `python -m training.precompute` wrote of the same data.
        workers: Processes that compose all scenes before the first step; for a GPU or TPU.
        initialize_from: Checkpoint of the same stage to start from, such as OUT/unfinished of a
            stopped run.
    """

    precomputed: Path | None = None
    workers: int | None = None
    initialize_from: Path | None = None


NO_TRANSFORMER_FLAGS = TransformerFlags()

Run = Annotated[RunFlags, Parameter(name="*")]
Data = Annotated[DataFlags, Parameter(name="*")]
Changes = Annotated[RecipeChanges, Parameter(name="*")]
Transformer = Annotated[TransformerFlags, Parameter(name="*")]


@app.command
def tokenizer(
    run: Run,
    *,
    resolution: Literal["low", "high"],
    initialize_from: Path | None = None,
    perceptual: Path | None = None,
    data_flags: Data = NO_DATA_FLAGS,
    changes: Changes = NO_CHANGES,
) -> None:
    """Trains a VQGAN.

    Parameters
    ----------
    resolution
        Whose tokenizer: the base's (low) or the superres's (high).
    initialize_from
        Checkpoint of a tokenizer of the same shape to start from.
    perceptual
        LPIPS file that `python -m training.perceptual convert` wrote; without one the loss has no
        perceptual part.
    """
    task = runs.tokenizer_task(
        named_preset(run.preset),
        run.data,
        run.out,
        resolution=resolution,
        seed=run.seed,
        data_flags=data_flags,
        changes=changes,
        initialize_from=initialize_from,
        perceptual=perceptual,
    )
    _train(task, run, run.checkpoints / "tokenizer" / resolution)


@app.command
def text_encoder(
    run: Run, *, data_flags: Data = NO_DATA_FLAGS, changes: Changes = NO_CHANGES
) -> None:
    """Trains a small T5 encoder by span corruption; later stages keep it frozen."""
    task = runs.text_encoder_task(
        named_preset(run.preset),
        run.data,
        run.out,
        seed=run.seed,
        data_flags=data_flags,
        changes=changes,
    )
    _train(task, run, run.checkpoints / "text_encoder")


@app.command
def base(
    run: Run,
    *,
    flags: Transformer = NO_TRANSFORMER_FLAGS,
    data_flags: Data = NO_DATA_FLAGS,
    changes: Changes = NO_CHANGES,
) -> None:
    """Trains the base transformer on a trained text encoder and low-resolution tokenizer."""
    _transformer("base", run, flags, data_flags, changes)


@app.command
def superres(
    run: Run,
    *,
    flags: Transformer = NO_TRANSFORMER_FLAGS,
    data_flags: Data = NO_DATA_FLAGS,
    changes: Changes = NO_CHANGES,
) -> None:
    """Trains the super-resolution transformer on the text encoder and both tokenizers."""
    _transformer("superres", run, flags, data_flags, changes)


def _transformer(
    stage: Literal["base", "superres"],
    run: RunFlags,
    flags: TransformerFlags,
    data_flags: DataFlags,
    changes: RecipeChanges,
) -> None:
    task = runs.transformer_task(
        named_preset(run.preset),
        stage,
        run.data,
        run.checkpoints,
        run.out,
        seed=run.seed,
        data_flags=data_flags,
        changes=changes,
        **vars(flags),
    )
    _train(task, run, run.checkpoints / stage)


def _train(task: Task, run: RunFlags, checkpoint: Path) -> None:
    """Trains a task, then exports the average of its snapshots; a stopped run exports into OUT."""
    recipe = task.recipe
    ended = train(
        task,
        LoopSettings(steps=recipe.steps, out=run.out, snapshot_every=recipe.average_every),
    )
    params = (
        ended.snapshots.average(recipe.average_decay)
        if ended.snapshots.steps
        else {name: np.asarray(value) for name, value in task.params(ended.state).items()}
    )
    record = {
        "preset": run.preset,
        "steps": ended.step,
        "seconds": round(ended.seconds),
        "metrics": dict(ended.metrics),
        "data": PurePosixPath(run.data).name,
        "skipped_examples": len(skipped_names(run.out / SKIPPED_FILE)),
        "finished": ended.finished,
    }
    if ended.finished:
        task.export(params, checkpoint, record)
        console.print(f"{task.name}: {ended.step} steps, exported to {checkpoint}")
    else:
        unfinished = run.out / "unfinished"
        task.export(params, unfinished, record)
        console.print(
            f"{task.name}: stopped at step {ended.step}; the same command goes on; "
            f"{unfinished} is its checkpoint so far"
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
