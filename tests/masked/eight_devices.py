"""Decodes on several numbers of devices, for test_mesh.py; run by itself with eight of a CPU.

    python tests/masked/eight_devices.py base float32 full adapters 1 1 2 4 8

The fourth word is "adapters" or "plain"; the fifth, how many rows one call computes; the others are
numbers of devices. Prints, as JSON, for each number of devices: the device
name of the serving configuration, the share of the blocks' bytes that the first device holds, and
the tokens of every decode after every step.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from services.base.spec import BASE
from services.decoding.pool import DecodePool, DecodeRequest
from services.decoding.serving import ServingConfig
from services.decoding.state import Row, Sampling, fresh_row
from services.masked.engine import MaskedEngine
from services.masked.spec import Config, MaskedSpec
from services.presets import preset
from services.runtime.checkpoints.precision import Weights
from services.runtime.checkpoints.serialization import Checkpoint
from services.superres.spec import SUPERRES
from tests.drawn_adapters import drawn_adapter

TINY = preset("tiny")
BASE_CONFIG = replace(TINY.base, heads=8, hidden=32, layers=2)
SUPERRES_CONFIG = replace(TINY.superres, heads=16, hidden=32)
SAMPLINGS = (
    Sampling(steps=4, guidance_scale=0.0, seed=1),
    Sampling(steps=5, guidance_scale=6.0, seed=2),
    Sampling(steps=3, guidance_scale=3.0, guidance_scale_start=3.0, top_k=5, seed=3),
    Sampling(steps=4, guidance_scale=2.0, temperature=0.0, choice_temperature=0.0, seed=2**64 - 1),
)


def engine_of(
    spec: MaskedSpec[Config], config: Config, serving: ServingConfig, folder: Path | None
) -> MaskedEngine[Config]:
    """Returns the engine of an untrained checkpoint; with two adapters if there is a folder."""
    abstract = nnx.eval_shape(lambda: spec.build(config, jnp.float32))
    random, flat = np.random.default_rng(0), nnx.to_flat_state(nnx.state(abstract, nnx.Param))
    checkpoint = Checkpoint(
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
    adapters = {} if folder is None else {name: folder / name for name in ("fox", "owl")}
    for seed, each in enumerate(adapters.values()):
        drawn_adapter(
            each, checkpoint.parameters, rank=2 + seed, seed=seed, stage=spec.name, checkpoint=""
        )
    return MaskedEngine(spec, checkpoint, serving, adapters)


def requests(engine: MaskedEngine[Any]) -> list[DecodeRequest]:
    """Makes decodes with all sorts of sampling parameters, negative prompts and known tokens."""
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
        condition = [
            random.integers(32, size=shape.shape[1:], dtype=np.int32)
            for shape in engine.spec.condition_shapes(engine.config)
        ]
        negative_text = negative if index % 2 else None
        weights = dict.fromkeys(engine.adapters, 1.0 - index)  # 1, 0, -1 and -2
        made.append(
            engine.decode_request(
                row, text, *condition, negative_text=negative_text, adapters=weights
            )
        )
    return made


def decoded(pool: DecodePool, made: list[DecodeRequest]) -> list[list[int]]:
    """Runs decodes together; returns the tokens of each after every step."""
    for slot, request in enumerate(made):
        pool.admit(slot, request)
    steps = max(request.row.total for request in made)
    states = [pool.advance(1, range(len(made))) for _ in range(steps)]
    return [[int(token) for step in states for token in step[slot].tokens] for slot in states[0]]


def share_of_first(pool: DecodePool) -> float:
    """Returns the share of the bytes of the blocks' matrices that the first device holds."""
    named = jax.tree_util.tree_leaves_with_path(pool.parameters["blocks"])
    blocks = [leaf for path, leaf in named if "'kernel'" in jax.tree_util.keystr(path)]
    first = [leaf.addressable_shards[0].data.nbytes for leaf in blocks]
    return sum(first) / sum(leaf.nbytes for leaf in blocks)


def main(
    stage: str,
    dtype: DTypeLike,
    weights: Weights,
    adapters: str,
    rows: str,
    folder: Path,
    *devices: str,
) -> None:
    """Prints the result for each number of devices."""
    results, within = {}, folder if adapters == "adapters" else None
    for shards in map(int, devices):
        serving = ServingConfig(
            slots=4,
            dtype=jnp.dtype(dtype),
            shards=shards,
            weights=weights,
            rows_at_once=int(rows),
        )
        engine: MaskedEngine[Any] = (
            engine_of(BASE, BASE_CONFIG, serving, within)
            if stage == "base"
            else engine_of(SUPERRES, SUPERRES_CONFIG, serving, within)
        )
        engine.warm_up()
        results[shards] = {
            "device": serving.device,
            "share": share_of_first(engine.pool),
            "tokens": decoded(engine.pool, requests(engine)),
        }
    print(json.dumps(results))


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        stage, dtype, weights, adapters, rows, *devices = sys.argv[1:]
        main(stage, dtype, weights, adapters, rows, Path(folder), *devices)  # type: ignore[arg-type]
