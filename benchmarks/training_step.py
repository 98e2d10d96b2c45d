"""A stage's training step against PyTorch's, against the machine's ceiling, and in the loop.

    python -m benchmarks.training_step STAGE [--preset demo256] [--rounds 5]

- ours: the compiled step of `training.loop` with its optimizer: of base and superres with masks, in
  the recipe's precision; of a tokenizer without perceptual loss and discriminator, in float32;
- PyTorch: the same shape and losses in plain PyTorch (benchmarks/peers/torch_training.py), eager
  and by `torch.compile`;
- ceiling: the best product of the same cores, bfloat16 with a float32 result or float32, of which
  the step's products, convolutions and attention reach a share;
- the loop: `training.loop.train` around the same step on batches that lie ready, with a report
  every 20 steps, against the bare step.

Targets: at most 1.0 of PyTorch's faster way, half of the ceiling, at most 3% for the loop.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np

from benchmarks.ceiling import matrix_ceiling
from benchmarks.measuring import conditions, in_turns
from benchmarks.training_contests import contest_of
from services.presets import preset
from training.compilation.step import Stage
from training.flops import flops_of_jaxpr
from training.loop import LoopSettings, Task, train
from training.mesh import one_device
from training.sharded_step import ShardedStep

REPORT_EVERY = 20  # steps


def our_step(task: Task) -> Callable[[], None]:
    """Returns what takes one step of ours and waits for it."""
    execution = one_device()
    step, batch, phase = ShardedStep(task, execution), task.batch(0), task.phase(0)
    state = jax.device_put(jax.jit(task.initial_state)(task.given), execution.replicated)
    taken = 0

    def take() -> None:
        nonlocal state, taken
        state, metrics = step(state, batch, taken, phase)
        taken += 1
        jax.block_until_ready(metrics)

    return take


def flops_of_step(task: Task) -> float:
    """Returns the FLOPs of a step's products, convolutions and attention."""
    step = ShardedStep(task, one_device())
    traced = step.trace(step.template, task.batch(0), 0, task.phase(0))
    return flops_of_jaxpr(traced.jaxpr.jaxpr)


def loop_share(task: Task, bare_step: Callable[[], None]) -> float:
    """Returns what the loop takes of a step's time besides the step.

    The steps from the first report to the second one are timed: compilation comes before them,
    the last save after them. Bare steps follow at once.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings = LoopSettings(
            steps=2 * REPORT_EVERY,
            out=Path(folder),
            report_every=REPORT_EVERY,
            save_every=10**6,
            snapshot_every=10**6,
        )
        examples_per_s: Any = train(task, settings).metrics["examples_per_s"]
    bare = in_turns({"": bare_step}, rounds=REPORT_EVERY)[""]
    return float(task.recipe.batch_size / examples_per_s / np.mean(bare.values) - 1)


def main() -> None:
    """Prints a line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=get_args(Stage))
    parser.add_argument("--preset", default="demo256")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    contest = contest_of(preset(arguments.preset), arguments.stage)
    task = contest.task
    flops = flops_of_step(task)
    print(conditions("jax", "torch"))
    print(
        f"{arguments.stage} of {arguments.preset}, {task.recipe.batch_size} examples, "
        f"{contest.precision}: {flops / 1e9:.3g} GFLOP a step"
    )
    parameters = task.params(jax.jit(task.initial_state)(task.given))
    bare_step = our_step(task)
    seconds = in_turns(
        {
            "ours": bare_step,
            "PyTorch": contest.twin(parameters, compiled=False).step,
            "PyTorch compiled": contest.twin(parameters, compiled=True).step,
        },
        rounds=arguments.rounds,
    )
    for name, spread in seconds.items():
        print(f"{name}: {spread:.3f} s a step")
    ours = seconds["ours"].median
    fastest = min(seconds["PyTorch"].median, seconds["PyTorch compiled"].median)
    print(f"ours / PyTorch's faster: {ours / fastest:.2f}")
    most = max(matrix_ceiling(precision=contest.precision).values())
    print(f"ceiling {most / 1e9:.0f} GFLOP/s; share of it: {flops / ours / most:.0%}")
    print(f"the loop besides the step: {loop_share(task, bare_step):+.1%}")


if __name__ == "__main__":
    main()
