"""Decodes on several numbers of devices, for test_mesh.py; run by itself with eight of a CPU.

    python tests/masked/eight_devices.py base float32 full 1 2 4 8

Prints, as JSON, for each number of devices: what the engine says it computes on, the share of the
bytes of its blocks that the first device holds, and the tokens of every decode after every step.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from services.base.engine import BaseEngine
from services.base.model import BaseTransformer
from services.decoding.pool import DecodePool, Job
from services.decoding.serving import Layout
from services.decoding.state import Row, Sampling, fresh_row
from services.presets import preset
from services.runtime.checkpoints.serialization import Checkpoint
from services.superres.engine import SuperresEngine
from services.superres.model import SuperresTransformer

TINY = preset("tiny")
BASE = replace(TINY.base, heads=8, hidden=32, layers=2)
SUPERRES = replace(TINY.superres, heads=16, hidden=32)
SAMPLINGS = (
    Sampling(steps=4, guidance=0.0, seed=1),
    Sampling(steps=5, guidance=6.0, seed=2),
    Sampling(steps=3, guidance=3.0, first_guidance=3.0, top_k=5, seed=3),
    Sampling(steps=4, guidance=2.0, temperature=0.0, confidence_noise=0.0, seed=2**64 - 1),
)


def engine_of(stage: str, shards: int, dtype: Any, weights: Any) -> Any:
    """Returns the engine of an untrained checkpoint, over so many devices."""
    config: Any = BASE if stage == "base" else SUPERRES
    build: Any = BaseTransformer if stage == "base" else SuperresTransformer
    abstract = nnx.eval_shape(lambda: build(config, rngs=nnx.Rngs(0)))
    random, flat = np.random.default_rng(0), nnx.to_flat_state(nnx.state(abstract, nnx.Param))
    checkpoint: Checkpoint[Any] = Checkpoint(
        config=config,
        parameters={
            ".".join(map(str, path)): random.normal(0.2, 0.5, leaf.shape).astype(np.float32)
            for path, leaf in flat
        },
        fingerprint={"encoder": "t5:1", "low_codebook": "low", "codebook": "high"},
        digest="",
        record={},
        folder=Path("nowhere"),
    )
    layout = Layout(slots=4, dtype=dtype, shards=shards, weights=weights)
    engine: Any = BaseEngine if stage == "base" else SuperresEngine
    return engine(checkpoint, layout)


def jobs(stage: str, engine: Any) -> list[Job]:
    """Makes decodes with all sorts of knobs: every other with a negative prompt, one half known."""
    random, made = np.random.default_rng(4), []
    tokens = engine.config.tokens
    for index, sampling in enumerate(SAMPLINGS):
        row = fresh_row(tokens, sampling)
        if index == 2:
            known = np.arange(tokens) < tokens // 2
            row = Row(
                tokens=np.arange(tokens) % 7,
                known=known,
                sampling=sampling,
                unknown=int((~known).sum()),
            )
        text, negative = random.normal(size=(2, 9, engine.config.text_hidden)).astype(np.float32)
        low = () if stage == "base" else (random.integers(32, size=engine.config.low_tokens),)
        made.append(engine.job(*low, text, row, negative_text=negative if index % 2 else None))
    return made


def decoded(pool: DecodePool, made: list[Job]) -> list[list[int]]:
    """Runs decodes together; returns the tokens of each after every step."""
    for slot, job in enumerate(made):
        pool.admit(slot, job)
    told = [pool.advance(1, range(len(made))) for _ in range(max(job.row.total for job in made))]
    return [[int(token) for step in told for token in step[slot].tokens] for slot in told[0]]


def share_of_first(pool: DecodePool) -> float:
    """Returns which share of the bytes of the blocks' matrices lies on the first device."""
    named = jax.tree_util.tree_leaves_with_path(pool._parameters["blocks"])
    blocks = [leaf for path, leaf in named if "'kernel'" in jax.tree_util.keystr(path)]
    first = [leaf.addressable_shards[0].data.nbytes for leaf in blocks]
    return sum(first) / sum(leaf.nbytes for leaf in blocks)


def main(stage: str, dtype: str, weights: str, *devices: str) -> None:
    """Prints what each number of devices comes to."""
    told = {}
    for shards in map(int, devices):
        engine = engine_of(stage, shards, jnp.dtype(dtype), weights)
        engine.warm_up()
        told[shards] = {
            "device": engine.device,
            "share": share_of_first(engine.pool),
            "tokens": decoded(engine.pool, jobs(stage, engine)),
        }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
