"""Trains small tokenizers on random pictures and prints the losses of each.

Run as a process of its own: `python train_small_tokenizer.py '[RUN, ...]'`, a RUN being
{"resolution": "low" or "high", "mesh": ..., "accumulate": ..., "remat": ...}; parts of a batch and
remat may be left out. The second half of a run's steps trains the discriminator too, whose losses
come last.
"""

import json
import sys
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from services.presets import preset
from training.mesh import Execution, training_mesh
from training.recipes import RECIPES
from training.sharded_step import ShardedStep
from training.tasks.tokenizer import TokenizerTask
from training.tasks.tokenizer_losses import TokenizerLosses

STEPS, BATCH = 4, 16
LOSSES = TokenizerLosses(
    adversarial_start_step=STEPS // 2, discriminator_width=8, edges=0.3, lecam=0.01
)


def run(wanted: dict[str, Any]) -> list[float]:
    """Trains as wanted; returns the loss of each step, then those of the discriminator."""
    system, resolution = preset("tiny"), wanted["resolution"]
    config = replace(
        system.low_tokenizer if resolution == "low" else system.high_tokenizer,
        channel_multipliers=(1, 1),
        encoder_kernels=(3, 3),
        codebook_size=16,
        code_dim=4,
    )
    execution = Execution(
        mesh=training_mesh(wanted["mesh"], jax.devices()),
        accumulate=wanted.get("accumulate", 1),
        remat=wanted.get("remat", False),
    )
    shape = (BATCH, config.image_size, config.image_size, 3)
    task = TokenizerTask(
        config,
        replace(RECIPES["tiny"].low_tokenizer, batch_size=BATCH),
        LOSSES,
        lambda step: np.random.default_rng(step).integers(0, 256, shape, np.uint8),
        resolution=resolution,
        execution=execution,
    )
    take_step = ShardedStep(task, execution)
    state = jax.jit(task.initial_state, out_shardings=take_step.shardings)(task.given)
    reports = []
    for step in range(STEPS):
        batch = execution.placed(task.batch(step), BATCH)
        state, reported = take_step(state, batch, step, task.phase(step))
        reports.append({name: float(value) for name, value in reported.items()})
    of_discriminator = [each["discriminator"] for each in reports if "discriminator" in each]
    return [each["loss"] for each in reports] + of_discriminator


if __name__ == "__main__":
    for each in json.loads(sys.argv[1]):
        print(f"losses: {json.dumps(run(each))}", flush=True)
