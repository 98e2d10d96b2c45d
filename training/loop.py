"""The one training loop: batches in, checkpoints and pictures out, resumed exactly.

A task says what is learned (`Task`); the loop says when and where: it compiles the step for a mesh
of devices, steps, reports, saves, restores. Every batch is a function of (seed, step) and every
random number of a step is folded from the same two, so a run that was stopped and resumed is the
run that was not, on another mesh too but for rounding.

Several processes run the loop at once, each on its own devices and with its own rows of every
batch. All save and restore the state, each its own shards; only the first writes everything else.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array
from PIL import Image

from training.flops import flops_of_jaxpr
from training.mesh import Execution, one_device, spec_of
from training.optimizers import Recipe
from training.processes import is_first, stop_signal
from training.reports import Metrics, Reports, fault_of, numbers_of
from training.resuming import (
    ResumeError,
    States,
    check_same_run,
    first_reported,
    last_reported,
    locked,
)
from training.sharded_step import Batch, Computation, ShardedStep, State
from training.snapshots import Snapshots
from training.throughput import Clock, StepEnds, Throughput


class Task(Computation, Protocol):
    """What one stage learns.

    Attributes:
        recipe: Steps, batch size and optimizer.
    """

    recipe: Recipe

    @property
    def name(self) -> str:
        """What the progress bar calls it."""

    def batch(self, step: int) -> Batch:
        """Returns this process's rows of the batch of that step, always the same ones."""

    def phase(self, step: int) -> str:
        """Returns which of its programs takes a step; most tasks have one, of any name."""

    def params(self, state: State) -> Mapping[str, Any]:
        """Returns the parameters of the network that is exported, arrays by dotted name."""

    def picture(self, state: State, batch: Batch) -> Image.Image | None:
        """Draws what the model makes of the first examples of a batch, or nothing."""

    def export(
        self, params: Mapping[str, np.ndarray], folder: Path, record: Mapping[str, Any]
    ) -> None:
        """Writes the checkpoint that the stage's server reads."""

    @property
    def shape(self) -> Mapping[str, Any]:
        """Returns what a resumed run must share with the run it resumes, as JSON."""


class Watch(Protocol):
    """What tells from the reported scalars how a run is; the same in every process."""

    def healthy(self, step: int, metrics: Mapping[str, Any], last_saved: int) -> bool:
        """Returns whether the state is worth saving; raises ArithmeticError to stop the run.

        Args:
            step: Number of steps taken.
            metrics: Scalars of the report.
            last_saved: Step of the newest saved state; 0 without one.
        """


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
        profile: Steps that JAX's profiler records into profile/, from the first up to the last.
        watch: Reads every report; a run that it does not find healthy saves no state, so that the
            last saved one stays good.
        skipped: Counts the examples that the data have left out so far, for the reports; None of
            data that leave none out.
    """

    steps: int
    out: Path
    report_every: int = 20
    picture_every: int = 500
    save_every: int = 500
    snapshot_every: int = 5000
    profile: range = range(0)
    watch: Watch | None = None
    skipped: Callable[[], int] | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "report_every", "picture_every", "save_every", "snapshot_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.profile and self.profile.stop > self.steps:
            raise ValueError(
                f"profile: expected steps of the run's {self.steps}, got "
                f"{self.profile.start}:{self.profile.stop}"
            )


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a run ended.

    Attributes:
        state: The last state.
        snapshots: Those of the parameters, the last one of the last step.
        step: Steps taken, those of earlier sessions included.
        finished: Whether it reached the last step; False if a signal stopped it.
        metrics: The numbers that were reported last.
        seconds: Seconds of training, earlier sessions included.
    """

    state: State
    snapshots: Snapshots
    step: int
    finished: bool
    metrics: Metrics
    seconds: float


def train(task: Task, settings: LoopSettings, execution: Execution | None = None) -> Run:
    """Trains a task to its last step, from its last saved state if there is one.

    SIGTERM or SIGINT to any process saves the state once and returns with finished=False.

    Args:
        task: What is learned.
        settings: When to report, draw and save.
        execution: The devices, and how a step is computed on them; by default on one.

    Raises:
        ArithmeticError: the loss is no longer finite, or `settings.watch` stops the run; the last
            saved state is kept.
        OSError: a state or snapshot cannot be written; those written before are kept.
        ResumeError: the folder holds a run of another task, shape or data, or of more steps;
            none of its states can be read; or another process trains there.
        ValueError: the mesh does not divide the batch.
    """
    execution = execution or one_device()
    execution.check_batch(task.recipe.batch_size)
    settings.out.mkdir(parents=True, exist_ok=True)
    with locked(settings.out) if is_first() else nullcontext():
        if is_first():
            check_same_run(settings.out / "run.json", {"task": task.name, **task.shape})
        # Closing waits for a save in progress: an error must not leave half a state behind.
        with closing(States(settings.out / "state")) as states:
            return _run(task, settings, _Programs(task, execution), states)


class _Programs:
    """The compiled programs of a run, and its arrays on their way to the devices."""

    def __init__(self, task: Task, execution: Execution) -> None:
        self._task, self._execution = task, execution
        self._batch_size = task.recipe.batch_size
        self._step = ShardedStep(task, execution)
        self.template = self._step.template
        self._flops: dict[str, float] = {}  # of the phases that are compiled

    def step(
        self, state: State, batch: Batch, step: int, clock: Clock
    ) -> tuple[State, Mapping[str, Array]]:
        """Takes a step; the first of a phase counts as compilation."""
        phase = self._task.phase(step)
        if phase in self._flops:
            return self._step(state, batch, step, phase)
        with clock.outside("compiling"):
            traced = self._step.trace(state, batch, step, phase)
            self._flops[phase] = flops_of_jaxpr(traced.jaxpr.jaxpr)
            return jax.block_until_ready(self._step(state, batch, step, phase))

    def throughput(self, step_s: float) -> dict[str, float]:
        """Returns rates of the phase that was compiled last, by the seconds of a step."""
        devices = self._execution.mesh.devices
        flops = list(self._flops.values())[-1]
        return Throughput(
            batch_size=self._batch_size,
            flops=flops,
            chips=devices.size,
            device_kind=devices.flat[0].device_kind,
        ).of(step_s)

    def initial_state(self) -> State:
        """Draws the state, each device its own shards."""
        mesh = self._execution.mesh

        def place(name: str, value: np.ndarray) -> Array:
            sharding = NamedSharding(mesh, spec_of(name, value.shape, mesh))
            return jax.make_array_from_callback(value.shape, sharding, value.__getitem__)

        given = {name: place(name, value) for name, value in self._task.given.items()}
        return jax.jit(self._task.initial_state, out_shardings=self._step.shardings)(given)

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step on the devices."""
        return self._execution.placed(self._task.batch(step), self._batch_size)


def _run(task: Task, settings: LoopSettings, programs: _Programs, states: States) -> Run:
    start, state, earlier_s = states.restore(programs.template) or (0, None, 0.0)
    if start > settings.steps:
        raise ResumeError(
            f"{settings.out} holds a run of {start} steps already, more than the {settings.steps} "
            "that are asked for: ask for more, or give another --out"
        )
    if state is None:
        state = programs.initial_state()
    snapshots = Snapshots(settings.out / "snapshots")
    snapshots.discard_after(start, settings.snapshot_every)
    log = settings.out / "metrics.jsonl"
    metrics: Metrics = last_reported(log)
    first_loss = first_reported(log).get("loss")
    reports = Reports(task.name, settings.steps, settings.out, start=start, earlier_s=earlier_s)
    clock, step, healthy = Clock(), start, True
    with (
        stop_signal() as stopped,
        ThreadPoolExecutor(max_workers=1) as composer,
        closing(StepEnds()) as step_ends,
        reports,
    ):
        following = composer.submit(programs.batch, start)
        reported_at = start, clock.seconds
        while step < settings.steps and not stopped(step):
            with clock.outside("waiting for batches", idle_since=step_ends.idle_since):
                batch = following.result()
            following = composer.submit(programs.batch, step + 1)
            with profiled(step, settings.profile, settings.out / "profile"):
                state, reported = programs.step(state, batch, step, clock)
            step_ends.follow(reported)
            step += 1
            if step % settings.report_every == 0 or step == settings.steps:
                numbers = numbers_of(reported)
                fault = fault_of(numbers, first_loss)
                if fault is not None:
                    raise FloatingPointError(
                        f"{task.name}: step {step} gave {fault}; the last good state is that of "
                        f"step {states.latest}: go on from it with a lower learning rate"
                    )
                step_s = (clock.seconds - reported_at[1]) / (step - reported_at[0])
                reported_at = step, clock.seconds
                skipped = {} if settings.skipped is None else {"skipped": settings.skipped()}
                rates = programs.throughput(step_s) | {"goodput": clock.goodput}
                metrics = numbers | rates | skipped
                first_loss = first_loss or float(reported["loss"])
                reports.report(step, metrics)
                if settings.watch is not None:
                    healthy = settings.watch.healthy(step, numbers, states.latest)
            if step % settings.picture_every == 0 or step == settings.steps:
                with clock.outside("pictures"):
                    _draw(task, state, programs.batch(0), reports, settings.out, step)
            if step % settings.snapshot_every == 0:
                with clock.outside("snapshots"):
                    snapshots.save(step, task.params(state))
            if step % settings.save_every == 0 and healthy:
                with clock.outside("saving"):
                    states.save(step, state, earlier_s + clock.seconds)
    seconds = earlier_s + clock.seconds
    if healthy or step >= settings.steps:
        states.save(step, state, seconds)
    if step % settings.snapshot_every:
        snapshots.save(step, task.params(state))
    return Run(
        state=state,
        snapshots=snapshots,
        step=step,
        finished=step >= settings.steps,
        metrics=metrics,
        seconds=seconds,
    )


def _draw(task: Task, state: State, batch: Batch, reports: Reports, out: Path, step: int) -> None:
    picture = task.picture(state, batch)
    if picture is not None and is_first():
        (out / "pictures").mkdir(exist_ok=True)
        picture.save(out / "pictures" / f"step-{step:07d}.png")
        reports.picture(step, picture)


@contextmanager
def profiled(step: int, steps: range, folder: Path) -> Iterator[None]:
    """Records a step into a folder that TensorBoard and Perfetto show, if it is one of `steps`."""
    if step == steps.start and steps:
        jax.profiler.start_trace(str(folder))
    yield
    if steps and step == steps.stop - 1:
        jax.effects_barrier()
        jax.profiler.stop_trace()
