"""Trains a small base on random tokens and prints the losses of each.

Run as a process of its own: `python train_small_base.py '[RUN, ...]' [COORDINATOR PROCESSES ID]`,
a RUN being {"mesh": ..., "out": ..., "accumulate": ..., "remat": ..., "step_s": ..., "rank": ...,
"family": ...}: parts of a batch, remat, seconds that each batch takes at least, the rank of an
adapter, which is trained instead, and "uvit", which is trained instead too, may be left out.
"""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from services.base.config import BaseConfig
from services.base.model import BaseTransformer
from services.base.uvit_config import UVitConfig
from services.nn.parameters import parameters_of
from services.runtime.checkpoints.adapters import LowRank
from services.runtime.checkpoints.serialization import Checkpoint
from training.loop import LoopSettings, train
from training.mesh import Execution, training_mesh
from training.optimizers import Recipe
from training.processes import is_first, join_processes
from training.tasks.adapters import AdapterTask
from training.tasks.frozen import Examples, FrozenStages
from training.tasks.masked_step import MaskedTokensStep
from training.tasks.masked_tokens import MaskedTokensTask

BATCH = 16
CONFIG = BaseConfig(
    grid=4, vocabulary=31, text_hidden=16, text_length=8, hidden=32, layers=2, heads=8, mlp=64
)
UVIT = UVitConfig(
    **asdict(CONFIG),
    image_size=64,
    embedding=32,
    channels=16,
    block_heads=4,
    blocks=2,
    halved=True,
    condition_width=8,
)
RECIPE = Recipe(
    steps=20,
    batch_size=BATCH,
    learning_rate=1e-4,
    warm_up_steps=2,
    first_decay=0.9,
    second_decay=0.96,
    weight_decay=0.045,
    average_every=10,
)


class NoStages(FrozenStages):
    """Stands for the frozen stages: nothing is tokenised, and no picture is drawn."""

    def __init__(self) -> None:
        """Has no stage."""

    def fingerprint(self) -> dict[str, str]:
        """Names stages that there are not."""
        return {"encoder": "none", "codebook": "none"}


class SmallBase(MaskedTokensTask):
    """The base's task without pictures, which take a tokenizer."""

    def picture(self, state: Any, batch: Examples) -> None:
        """Draws nothing."""


class SmallAdapter(AdapterTask):
    """The task of a base's adapter without pictures."""

    def picture(self, state: Any, batch: Examples) -> None:
        """Draws nothing."""


def fresh_checkpoint() -> Checkpoint[Any]:
    """Returns a checkpoint of random parameters that is in no file."""
    parameters = parameters_of(BaseTransformer(CONFIG, rngs=nnx.Rngs(0)))
    return Checkpoint(
        config=CONFIG,
        parameters={name: np.asarray(value) for name, value in parameters.items()},
        fingerprint=NoStages().fingerprint(),
        digest="none",
        record={},
        folder=Path(),
    )


def examples(step: int, rows: slice) -> Examples:
    """Returns these rows of a step's random batch."""
    random = np.random.default_rng(step)
    low = random.integers(0, CONFIG.vocabulary, (BATCH, CONFIG.tokens)).astype(np.int32)
    text = random.normal(size=(BATCH, CONFIG.text_length, CONFIG.text_hidden)).astype(np.float32)
    mask = np.arange(CONFIG.text_length) < random.integers(1, CONFIG.text_length, (BATCH, 1))
    return Examples(low=low[rows], high=None, text=text[rows], text_mask=mask[rows])


def run(wanted: dict[str, Any]) -> list[float]:
    """Trains as wanted, and returns the loss of each step that this session took."""
    execution = Execution(
        mesh=training_mesh(wanted["mesh"], jax.devices()),
        accumulate=wanted.get("accumulate", 1),
        remat=wanted.get("remat", False),
    )
    rows = execution.local_rows(BATCH)

    def batch(step: int) -> Examples:
        time.sleep(wanted.get("step_s", 0.0))
        return examples(step, rows)

    task: SmallBase | SmallAdapter
    if "rank" in wanted:
        rank = LowRank(rank=wanted["rank"])
        task = SmallAdapter(fresh_checkpoint(), rank, RECIPE, execution, NoStages(), batch)
    else:
        config = UVIT if wanted.get("family") == "uvit" else CONFIG
        task = SmallBase(MaskedTokensStep(config, RECIPE, execution), NoStages(), batch)
    out = Path(wanted["out"])
    train(
        task,
        LoopSettings(steps=RECIPE.steps, out=out, report_every=1, snapshot_every=10),
        execution,
    )
    lines = (out / "metrics.jsonl").read_text().splitlines() if is_first() else []
    return [json.loads(line)["loss"] for line in lines]


if __name__ == "__main__":
    if len(sys.argv) > 2:
        join_processes(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    for each in json.loads(sys.argv[1]):
        losses = run(each)
        if is_first():
            print(f"losses: {json.dumps(losses)}", flush=True)
