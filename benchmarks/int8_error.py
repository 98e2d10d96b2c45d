"""What int8 weights save, what they change, and what they cost, on a checkpoint.

`python benchmarks/int8_error.py [checkpoints]`, by default checkpoints/demo. Text encoder, base and
superres are loaded twice, as their servers load them with `--weights full` and with
`--weights int8`, and given the same inputs: captions made up here, and the grids that the full base
and superres decode from them. Predictions are compared where half of a grid is masked.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from services.base.model import BaseTransformer
from services.base.spec import BASE
from services.decoding.serving import ServingConfig, default_serving_config
from services.decoding.state import Sampling, fresh_row
from services.masked.defaults import checkpoint_defaults
from services.masked.engine import MaskedEngine
from services.masked.requests import read_sampling
from services.nn.quantization import with_weights
from services.runtime.checkpoints.precision import Weights
from services.runtime.checkpoints.serialization import Checkpoint
from services.superres.model import SuperresTransformer
from services.superres.spec import SUPERRES
from services.text_encoder.engine import TextEncoderEngine
from services.text_encoder.loading import load_text_encoder

KINDS: tuple[Weights, Weights] = ("full", "int8")
THINGS = ("a fox", "an owl", "two keys", "a mushroom", "three balloons", "a castle", "an egg")
CHECKPOINTS = ("left of a crown", "above a guitar", "and a star")
BACKGROUNDS = ("on a blue background", "on white")
CAPTIONS = [
    *(f"{thing} {background}" for thing in THINGS for background in BACKGROUNDS),
    *(f"{thing} {place} {end}" for thing in THINGS for place in CHECKPOINTS for end in BACKGROUNDS),
]
DECODES = 8  # captions that are decoded as a whole
STEPS = {"base": 24, "superres": 8}
MASKS = 4  # of each decoded grid
RUNS = 20  # of each timing

Engine = MaskedEngine[Any]


@dataclass(frozen=True)
class Pair:
    """A stage in full precision and in int8."""

    full: Any
    int8: Any

    def each(self, work: Callable[[Any], Any]) -> "Pair":
        """Does the same with both."""
        return Pair(work(self.full), work(self.int8))


def print_bytes(name: str, modules: Pair) -> None:
    """Prints what the parameters of both take on the device."""
    sizes = modules.each(
        lambda module: sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(module)))
    )
    share = sizes.int8 / sizes.full
    print(
        f"{name}: {sizes.full / 1e6:.2f} MB in full, {sizes.int8 / 1e6:.2f} MB in int8, {share:.0%}"
    )


def embeddings(engine: TextEncoderEngine) -> list[np.ndarray]:
    """Embeds the captions; as they travel, in bfloat16."""
    rows = [engine.tokenize(caption) for caption in CAPTIONS]
    return [each.astype(np.float32) for each in engine.embed(rows)]


def compare_embeddings(texts: Pair) -> None:
    """Prints how far the vectors of all tokens moved."""
    full, int8 = np.concatenate(texts.full), np.concatenate(texts.int8)
    size, other = np.linalg.norm(full, axis=-1), np.linalg.norm(int8, axis=-1)
    cosine = (full * int8).sum(axis=-1) / (size * other)
    relative = np.linalg.norm(full - int8, axis=-1) / size
    print(
        f"text encoder: {len(CAPTIONS)} captions, {len(full)} tokens: "
        f"cosine {cosine.mean():.5f}, worst {cosine.min():.5f}; "
        f"relative error {relative.mean():.2%}, worst {relative.max():.2%}"
    )


def decode(engine: Engine, inputs: list[tuple[Any, ...]], seed: int = 0) -> np.ndarray:
    """Decodes one grid of each input with the checkpoint's own sampling parameters."""
    stage = engine.checkpoint.folder.name
    defaults = checkpoint_defaults(engine.checkpoint.folder, steps=STEPS[stage])
    chosen, grids = read_sampling(defaults, defaults), []
    for number, given in enumerate(inputs):
        sampling = replace(chosen, seed=seed + number)
        engine.pool.admit(
            0, engine.decode_request(fresh_row(engine.config.tokens, sampling), *given)
        )
        grids.append(engine.pool.advance(defaults.steps, [0])[0].tokens)
    return np.stack(grids)


def network(kind: type, checkpoint: Checkpoint[Any], serving: ServingConfig) -> nnx.Module:
    """Returns a stage's transformer as its engine builds it."""
    return with_weights(
        lambda: kind(checkpoint.config, rngs=nnx.Rngs(0), dtype=serving.dtype),
        checkpoint.parameters,
        dtype=serving.dtype,
        weights=serving.weights,
    )


def log_probabilities(module: Any, inputs: list[tuple[np.ndarray, ...]], masked: np.ndarray) -> Any:
    """Predicts every token of masked grids given their inputs, one row at a time."""
    graph, state = nnx.split(module)

    @jax.jit
    def predict(state: Any, tokens: Any, given: Any) -> Any:
        model = nnx.merge(graph, state)
        raw = model.logits(tokens, model.context(*given), jnp.ones(1, bool))
        return jax.nn.log_softmax(raw, axis=-1)[0]

    rows = [
        predict(state, tokens[None], [part[None] for part in given])
        for tokens, given in zip(masked, inputs, strict=True)
    ]
    return np.stack(rows).astype(np.float64)


def compare_predictions(
    name: str, modules: Pair, inputs: list[tuple[np.ndarray, ...]], grids: np.ndarray
) -> None:
    """Prints how far the distributions of masked tokens moved."""
    grids, inputs = np.repeat(grids, MASKS, axis=0), [each for each in inputs for _ in range(MASKS)]
    half = np.tile(np.arange(grids.shape[1]) % 2 == 0, (len(grids), 1))
    hidden = np.random.default_rng(0).permuted(half, axis=1)
    mask_id = modules.full.config.vocabulary
    masked = np.where(hidden, mask_id, grids)
    found = modules.each(lambda module: log_probabilities(module, inputs, masked)[hidden])
    share = np.exp(found.full)
    divergence = (share * (found.full - found.int8)).sum(axis=-1)
    entropy = -(share * found.full).sum(axis=-1).mean()
    agree = (found.full.argmax(axis=-1) == found.int8.argmax(axis=-1)).mean()
    print(
        f"{name}: {len(divergence)} masked tokens of {len(grids)} half-masked grids: "
        f"KL mean {divergence.mean():.1e}, p99 {np.percentile(divergence, 99):.1e}, "
        f"worst {divergence.max():.1e} nats (entropy {entropy:.2f}); "
        f"same likeliest token {agree:.2%}"
    )


def same(grids: np.ndarray, others: np.ndarray) -> str:
    """Says how many tokens are equal."""
    whole = (grids == others).all(axis=1).sum()
    return f"{(grids == others).mean():.1%} of tokens equal, {whole} of {len(grids)} grids wholly"


def alternating(name: str, work: Pair) -> None:
    """Prints the median time of both, run in turn."""
    taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for run in range(RUNS + 1):
        for kind in KINDS:
            begun_s = time.perf_counter()
            getattr(work, kind)()
            if run:  # the first is a warm-up
                taken[kind].append(time.perf_counter() - begun_s)
    full_s, int8_s = median(taken["full"]), median(taken["int8"])
    print(
        f"{name}: full {full_s * 1e3:.2f} ms, int8 {int8_s * 1e3:.2f} ms "
        f"(x{int8_s / full_s:.2f}), medians of {RUNS} in turn"
    )


def one_step(engine: Engine, given: tuple[Any, ...]) -> Callable[[], Any]:
    """Returns what takes one guided step of one row."""
    row = fresh_row(
        engine.config.tokens, Sampling(steps=RUNS + 1, guidance_scale=4.0, guidance_scale_start=4.0)
    )
    engine.pool.admit(0, engine.decode_request(row, *given))
    return lambda: engine.pool.advance(1, [])


def print_stage(name: str, kind: type, engines: Pair, given: Pair) -> np.ndarray:
    """Prints what int8 changes in a stage that decodes.

    Args:
        name: Of the stage.
        kind: Its transformer.
        engines: Warmed up.
        given: What its jobs are made of, by the stages before it in full and in int8.

    Returns:
        The grids it decodes in full.
    """
    modules = engines.each(lambda engine: network(kind, engine.checkpoint, engine.serving))
    print_bytes(name, modules)
    grids = decode(engines.full, given.full)
    idle = fresh_row(grids.shape[1], Sampling(steps=1, guidance_scale=0.0))
    inputs = [engines.full.decode_request(idle, *each).inputs for each in given.full]
    compare_predictions(name, modules, inputs, grids)
    print(f"{name} decodes, {name} in int8: {same(grids, decode(engines.int8, given.full))}")
    before = same(grids, decode(engines.int8, given.int8))
    print(f"{name} decodes, text encoder in int8 too: {before}")
    print(
        f"{name} decodes, another seed: {same(grids, decode(engines.full, given.full, seed=1000))}"
    )
    alternating(f"{name} step", engines.each(lambda engine: one_step(engine, given.full[0])))
    return grids


def main(checkpoints: Path) -> None:
    """Prints bytes, errors and times."""
    servings = Pair(*(default_serving_config(1, weights=kind) for kind in KINDS))
    device = f"{jax.devices()[0].device_kind} x{jax.device_count()}"
    print(
        f"{checkpoints}, {servings.full.precision} against {servings.int8.precision}, on {device}"
    )
    loaded = servings.each(
        lambda serving: load_text_encoder(
            checkpoints / "text_encoder", dtype=serving.dtype, weights=serving.weights
        )
    )
    encoders = loaded.each(lambda each: TextEncoderEngine(each, max_batch_size=8))
    print_bytes("text encoder", loaded.each(lambda each: each.encoder))
    texts = encoders.each(embeddings)
    compare_embeddings(texts)
    rows = [encoders.full.tokenize(CAPTIONS[0])]
    alternating("text encode", encoders.each(lambda each: lambda: each.embed(rows)))

    texts = texts.each(lambda each: each[:: len(CAPTIONS) // DECODES][:DECODES])
    prompts = texts.each(lambda each: [(text,) for text in each])
    bases = servings.each(lambda each: MaskedEngine.load(BASE, checkpoints / "base", each))
    supers = servings.each(lambda each: MaskedEngine.load(SUPERRES, checkpoints / "superres", each))
    for engine in (bases.full, bases.int8, supers.full, supers.int8):
        engine.warm_up()
    low = print_stage("base", BaseTransformer, bases, prompts)
    print_stage(
        "superres",
        SuperresTransformer,
        supers,
        texts.each(lambda each: list(zip(each, low, strict=True))),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "checkpoints/demo"))
