"""`python -m training <stage>`: trains one stage and exports its checkpoint."""

import logging
import sys
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import jax
from cyclopts import App, Parameter
from rich.console import Console

from services.presets import preset as named_preset
from services.runtime.checkpoints.errors import CheckpointError
from services.runtime.version import package_version
from training import runs
from training.adapter_flags import NO_ADAPTER, AdapterFlags
from training.checkpoint_commands import average, golden, hub, merge
from training.compilation.report import report_of
from training.compilation.step import Stage, compile_step
from training.compilation.topologies import topology_devices
from training.data.captioned.log import SKIPPED_FILE, SkippedNames
from training.data.sources import NO_DATA_FLAGS, DataFlags
from training.data.sprites import has_sprites
from training.flags import (
    DEFAULT_DEVICES,
    NO_TRANSFORMER_FLAGS,
    DeviceFlags,
    RunFlags,
    TokenizerFlags,
    TransformerFlags,
)
from training.html_report import write_report
from training.launch import launch_command
from training.loop import LoopSettings, Task, Watch, train
from training.loop import Run as EndedRun
from training.mesh import Execution, training_mesh
from training.processes import is_first
from training.public_weights.import_commands import app as import_app
from training.recipe_changes import NO_CHANGES, NO_LOSS_CHANGES, LossChanges, RecipeChanges
from training.tasks.codebook_watch import CodebookWatch

app = App(
    name="python -m training",
    name_transform=str,  # stages are called as their packages are
    help="Trains one stage: resumable state and pictures in OUT, the checkpoint in CHECKPOINTS.",
    version=package_version,
)
console = Console()
INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: not done, to be run again


Run = Annotated[RunFlags, Parameter(name="*")]
Data = Annotated[DataFlags, Parameter(name="*")]
Changes = Annotated[RecipeChanges, Parameter(name="*")]
Transformer = Annotated[TransformerFlags, Parameter(name="*")]
Adapter = Annotated[AdapterFlags, Parameter(name="*")]
Devices = Annotated[DeviceFlags, Parameter(name="*")]


@app.command
def tokenizer(
    run: Run,
    *,
    flags: Annotated[TokenizerFlags, Parameter(name="*")],
    data_flags: Data = NO_DATA_FLAGS,
    changes: Changes = NO_CHANGES,
    losses: LossChanges = NO_LOSS_CHANGES,
    devices: Devices = DEFAULT_DEVICES,
) -> None:
    """Trains a VQGAN, or a new decoder for one."""
    checkpoint = run.checkpoints / "tokenizer" / flags.resolution
    source = flags.initialize_from
    if flags.finetune_decoder and source and source.resolve() == checkpoint.resolve():
        raise ValueError(
            f"the fine-tuned tokenizer would take the place of {source}, which it starts from: "
            "move that folder, or give another --checkpoints"
        )
    execution = devices.execution()
    task = runs.tokenizer_task(
        named_preset(run.preset),
        run.data,
        run.out,
        seed=run.seed,
        data_flags=data_flags,
        changes=changes,
        loss_changes=losses,
        execution=execution,
        **vars(flags),
    )
    # A frozen codebook is used as much as the data ask for.
    watch = None if flags.finetune_decoder else CodebookWatch()
    _train(task, run, execution, checkpoint, _skipped(run), watch)


@app.command
def text_encoder(
    run: Run,
    *,
    initialize_from: Annotated[Path | None, Parameter(name="--from")] = None,
    data_flags: Data = NO_DATA_FLAGS,
    changes: Changes = NO_CHANGES,
    devices: Devices = DEFAULT_DEVICES,
) -> None:
    """Trains a small T5 encoder by span corruption; later stages keep it frozen.

    Parameters
    ----------
    initialize_from
        Checkpoint of a text encoder of the same shape to start from; its vocabulary stays.
    """
    execution = devices.execution()
    task = runs.text_encoder_task(
        named_preset(run.preset),
        run.data,
        run.out,
        seed=run.seed,
        data_flags=data_flags,
        changes=changes,
        initialize_from=initialize_from,
        execution=execution,
    )
    _train(task, run, execution, run.checkpoints / "text_encoder", _skipped(run))


@app.command
def base(
    run: Run,
    *,
    flags: Transformer = NO_TRANSFORMER_FLAGS,
    adapter: Adapter = NO_ADAPTER,
    data_flags: Data = NO_DATA_FLAGS,
    changes: Changes = NO_CHANGES,
    devices: Devices = DEFAULT_DEVICES,
) -> None:
    """Trains the base transformer, or an adapter, on a text encoder and low-res tokenizer."""
    _transformer("base", run, flags, adapter, data_flags, changes, devices)


@app.command
def superres(
    run: Run,
    *,
    flags: Transformer = NO_TRANSFORMER_FLAGS,
    adapter: Adapter = NO_ADAPTER,
    data_flags: Data = NO_DATA_FLAGS,
    changes: Changes = NO_CHANGES,
    devices: Devices = DEFAULT_DEVICES,
) -> None:
    """Trains the super-resolution transformer, or an adapter, on encoder and both tokenizers."""
    _transformer("superres", run, flags, adapter, data_flags, changes, devices)


def _transformer(
    stage: Literal["base", "superres"],
    run: RunFlags,
    flags: TransformerFlags,
    adapter: AdapterFlags,
    data_flags: DataFlags,
    changes: RecipeChanges,
    devices: DeviceFlags,
) -> None:
    low_rank, execution = adapter.low_rank(), devices.execution()
    task = runs.transformer_task(
        named_preset(run.preset),
        stage,
        run.data,
        run.checkpoints,
        run.out,
        seed=run.seed,
        data_flags=data_flags,
        changes=changes,
        low_rank=low_rank,
        execution=execution,
        **vars(flags),
    )
    exported = run.checkpoints / stage if low_rank is None else run.out / "adapter"
    # Shards have their unusable examples marked: what is read of them is never skipped.
    _train(task, run, execution, exported, None if flags.precomputed else _skipped(run))


def _skipped(run: RunFlags) -> SkippedNames | None:
    """Returns what counts the examples that a run skips; None of scenes, which are all usable."""
    return None if has_sprites(Path(run.data)) else SkippedNames(run.out / SKIPPED_FILE)


def _train(
    task: Task,
    run: RunFlags,
    execution: Execution,
    checkpoint: Path,
    skipped: SkippedNames | None = None,
    watch: Watch | None = None,
) -> None:
    """Trains a task, then exports the average of its snapshots; a stopped run exports into OUT."""
    recipe = task.recipe
    ended = train(
        task,
        LoopSettings(
            steps=recipe.steps,
            out=run.out,
            snapshot_every=recipe.average_every,
            profile=run.profiled_steps,
            watch=watch,
            skipped=None if skipped is None else skipped.count,
        ),
        execution,
    )
    if is_first():
        if ended.metrics:
            write_report(run.out)
        _export(task, run, ended, checkpoint if ended.finished else run.out / "unfinished")
    if not ended.finished:
        sys.exit(INTERRUPTED)


def _export(task: Task, run: RunFlags, ended: EndedRun, folder: Path) -> None:
    recipe = task.recipe
    averaged = ended.snapshots.averaged_steps(recipe.average_every)
    record = {
        "preset": run.preset,
        "steps": ended.step,
        "seconds": round(ended.seconds),
        "metrics": dict(ended.metrics),
        "data": PurePosixPath(run.data).name,
        "skipped_examples": SkippedNames(run.out / SKIPPED_FILE).count(),
        "finished": ended.finished,
        "averaged_steps": averaged,
    }
    average = ended.snapshots.average(recipe.average_decay, every=recipe.average_every)
    task.export(average, folder, record)
    weights = (
        f"an average of {len(averaged)} snapshots"
        if len(averaged) > 1
        else f"those of its last step, as it is shorter than average_every={recipe.average_every}"
    )
    console.print(
        f"{task.name}: {ended.step} steps, exported to {folder}; its weights are {weights}"
        if ended.finished
        else f"{task.name}: stopped at step {ended.step}; the same command goes on; {folder} is "
        f"its checkpoint so far; its weights are {weights}"
    )


app.command(average)
app.command(merge)
app.command(golden)
app.command(hub)
app.command(import_app)


@app.command(name="compile")
def compile_for_tpu(
    stage: Stage,
    *,
    topology: str,
    preset: str = "muse-3b",
    batch: int | None = None,
    mesh: str | None = None,
    accumulate: int = 1,
    remat: Literal["layer", "none"] | None = None,
    precision: Literal["float32", "bfloat16"] | None = None,
) -> None:
    """Compiles a training step for TPUs that are not here, and prints what a chip needs.

    Parameters
    ----------
    stage
        Whose step: base, superres, tokenizer-low or tokenizer-high, the latter with discriminator.
    topology
        TPUs, such as v5e:16x16; libtpu knows them (the extra `tpu`).
    preset
        System of the stage.
    batch
        Examples a step; by default the recipe's.
    mesh
        Arrangement of the chips; by default fsdp over all, and data of tokenizers, which are small.
    accumulate
        Parts that the batch is divided into.
    remat
        "layer" computes the inside of each layer again in the backward pass; "none" keeps it. By
        default "layer", and "none" of tokenizers.
    precision
        Of the factors of matrix products; by default the recipe's.
    """
    jax.config.update("jax_platforms", "cpu")  # what is traced here; libtpu only compiles
    chips = topology_devices(topology)
    axis, usual = ("data", "none") if stage.startswith("tokenizer") else ("fsdp", "layer")
    execution = Execution(
        mesh=training_mesh(mesh or f"{axis}={len(chips)}", chips),
        accumulate=accumulate,
        remat=(remat or usual) == "layer",
    )
    changes = RecipeChanges(batch_size=batch, precision=precision)
    compiled = compile_step(named_preset(preset), stage, execution, changes)
    console.print(report_of(compiled), highlight=False, soft_wrap=True)


app.command(launch_command(app))


def main() -> None:
    """Runs the command line; a mistake of the user's is one line."""
    logging.getLogger("absl").setLevel(logging.WARNING)
    try:
        app()
    except (ArithmeticError, CheckpointError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
