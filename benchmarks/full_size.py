"""A full-size image on one chip: seconds by stage and end to end, beside the floor of the chip.

`python -m benchmarks.full_size` (`--preset tiny` to see that it runs). Random weights in the layout
a server takes on the device that is there: bfloat16 on an accelerator. Each stage is driven as its
server drives it, all in this process and one after the other: what gRPC and the network add is not
in it. Prompts are of 24 tokens, guidance is on, steps are the preset's.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cyclopts import App
from flax import nnx
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import Spread, conditions
from services.base.families import AnyBaseConfig
from services.base.model import BaseTransformer
from services.base.spec import BASE
from services.decoding.pool import DecodeRequest, Progress
from services.decoding.serving import ServingConfig, default_serving_config
from services.decoding.state import Sampling, fresh_row
from services.masked.engine import MaskedEngine
from services.nn.parameters import with_parameters
from services.presets import Preset
from services.presets import preset as preset_of
from services.runtime.checkpoints.serialization import Checkpoint, codebook_fingerprint
from services.runtime.scheduling.scheduler import SlotScheduler
from services.runtime.wire.timing import Timed
from services.superres.config import SuperresConfig
from services.superres.model import SuperresTransformer
from services.superres.spec import SUPERRES
from services.text_encoder.engine import TextEncoderEngine
from services.text_encoder.loading import LoadedTextEncoder
from services.text_encoder.model import TextEncoder
from services.text_encoder.vocabulary import Vocabulary
from services.tokenizer.engine import TokenizerEngine
from services.tokenizer.model import CODEBOOK, Tokenizer
from tools.description.chips import chip as chip_of
from tools.description.description import describe

VOCABULARY = Path("checkpoints/demo/text_encoder/spiece.model")
PROMPT_TOKENS = 24
GUIDANCE = 4.0
QUEUED = 64
FINGERPRINTS = {"encoder": "random", "low_codebook": "random", "codebook": "random"}
TARGET_S = 0.35  # an image at batch 1, muse-3b on an H200
STAGES = ("text_encoder", "base", "superres", "tokenizer")

app = App(help=__doc__)


def random_parameters(build: Callable[[], nnx.Module], dtype: Any) -> dict[str, Any]:
    """Draws parameters on the device: scales of 1, the rest normal of deviation 0.02."""
    flat = nnx.to_flat_state(nnx.state(nnx.eval_shape(build), nnx.Param))
    draw = jax.jit(
        lambda key, shape: (0.02 * jax.random.normal(key, shape)).astype(dtype), static_argnums=1
    )
    return {
        ".".join(map(str, path)): (
            jnp.ones(leaf.shape, dtype)
            if path[-1] == "scale"
            else draw(jax.random.key(index), leaf.shape)
        )
        for index, (path, leaf) in enumerate(flat)
    }


def checkpoint_of(config: Any, build: Callable[[], nnx.Module], dtype: Any) -> Checkpoint[Any]:
    """Returns a checkpoint that lies nowhere, of random parameters."""
    parameters, fingerprint = random_parameters(build, dtype), dict(FINGERPRINTS)
    if CODEBOOK in parameters:
        fingerprint["codebook"] = codebook_fingerprint(np.asarray(parameters[CODEBOOK]))
    return Checkpoint(
        config=config,
        parameters=parameters,
        fingerprint=fingerprint,
        digest="",
        record={},
        folder=Path("nowhere"),
    )


@dataclass(frozen=True)
class Stages:
    """The four stages that compute, warmed up."""

    text_encoder: TextEncoderEngine
    base: SlotScheduler[DecodeRequest, Progress]
    superres: SlotScheduler[DecodeRequest, Progress]
    tokenizer: TokenizerEngine
    base_engine: MaskedEngine[AnyBaseConfig]
    superres_engine: MaskedEngine[SuperresConfig]


def build_stages(system: Preset, serving: ServingConfig) -> Stages:
    """Builds all stages with random weights and compiles everything, saying how long each took."""
    dtype = serving.dtype

    def encoder() -> TextEncoder:
        return TextEncoder(system.text_encoder, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=dtype)

    text_encoder = TextEncoderEngine(
        LoadedTextEncoder(
            encoder=with_parameters(encoder, random_parameters(encoder, dtype), dtype=dtype),
            vocabulary=Vocabulary.from_file(VOCABULARY),
            folder=Path("random"),
            fingerprint="random",
            digest="",
            precision=serving.precision,
        ),
        max_batch_size=serving.slots,
    )
    base = MaskedEngine(
        BASE,
        checkpoint_of(system.base, lambda: BaseTransformer(system.base, rngs=nnx.Rngs(0)), dtype),
        serving,
    )
    superres = MaskedEngine(
        SUPERRES,
        checkpoint_of(
            system.superres,
            lambda: SuperresTransformer(system.superres, rngs=nnx.Rngs(0)),
            dtype,
        ),
        serving,
    )
    high = system.high_tokenizer
    tokenizer = TokenizerEngine(
        checkpoint_of(high, lambda: Tokenizer(high, rngs=nnx.Rngs(0)), jnp.float32)
    )
    for name, engine in zip(STAGES, (text_encoder, base, superres, tokenizer), strict=True):
        begun = time.perf_counter()
        engine.warm_up()
        print(f"{name} compiled in {time.perf_counter() - begun:.1f} s", flush=True)
    return Stages(
        text_encoder,
        SlotScheduler(base.pool, max_queued=QUEUED),
        SlotScheduler(superres.pool, max_queued=QUEUED),
        tokenizer,
        base,
        superres,
    )


def decoded(
    scheduler: SlotScheduler[DecodeRequest, Progress], requests: Sequence[DecodeRequest]
) -> list[np.ndarray]:
    """Runs decodes that come at once.

    Raises:
        RuntimeError: one failed; the log says why.
    """
    events: list[list[Any]] = [[] for _ in requests]
    for request, listener in zip(requests, events, strict=True):
        scheduler.submit(request, listener.append, stream=False)
    while scheduler.tick():
        pass
    ends = [listener[-1] for listener in events]
    if failed := [end for end in ends if not isinstance(end, Timed)]:
        raise RuntimeError(f"a decode ended with {failed[0]}")
    return [end.result.tokens for end in ends]


def make_images(stages: Stages, system: Preset, count: int, seed: int) -> dict[str, float]:
    """Makes images and returns the seconds of each stage.

    Args:
        stages: Warmed up.
        system: Their preset.
        count: Images that are asked for at once.
        seed: Of the prompts and the decodes.
    """
    random = np.random.default_rng(seed)
    prompts = random.integers(3, system.text_encoder.vocabulary_size, (count, PROMPT_TOKENS))
    clock = [time.perf_counter()]

    def sampled(steps: int, index: int) -> Sampling:
        return Sampling(steps=steps, guidance_scale=GUIDANCE, seed=seed * count + index)

    texts = [each.astype(np.float32) for each in stages.text_encoder.embed(prompts.tolist())]
    clock.append(time.perf_counter())
    requests = [
        stages.base_engine.decode_request(
            fresh_row(system.base.tokens, sampled(system.base_steps, index)), text
        )
        for index, text in enumerate(texts)
    ]
    low = decoded(stages.base, requests)
    clock.append(time.perf_counter())
    requests = [
        stages.superres_engine.decode_request(
            fresh_row(system.superres.tokens, sampled(system.superres_steps, index)), text, tokens
        )
        for index, (tokens, text) in enumerate(zip(low, texts, strict=True))
    ]
    grid = (system.superres.grid, system.superres.grid)
    high = [tokens.reshape(grid) for tokens in decoded(stages.superres, requests)]
    clock.append(time.perf_counter())
    pictures = [stages.tokenizer.start_decode(tokens) for tokens in high]
    for picture in pictures:
        np.asarray(picture)
    clock.append(time.perf_counter())
    return dict(zip(STAGES, np.diff(clock).tolist(), strict=True))


@app.default
def main(
    *,
    preset: str = "muse-3b",
    chip: str = "h200",
    batches: tuple[int, ...] = (1, 8),
    rounds: int = 5,
    rows: int = 1,
) -> None:
    """Prints milliseconds an image by stage, for some images at once, and the chip's floor.

    Parameters
    ----------
    preset
        muse-3b, muse-632m, demo or tiny.
    chip
        What the floor is for: h200, v4, v5e, v6e or cpu.
    batches
        Images asked for at once, at most 8.
    rounds
        Timed rounds of each.
    rows
        Decodes that one call of base's or superres's network computes, as of the servers.
    """
    system = preset_of(preset)
    description = describe(system, chip_of(chip))
    print(conditions("jax", "flax"))
    serving = default_serving_config(rows_at_once=rows)
    stages = build_stages(system, serving)
    print(
        f"{preset} on {serving.device}, {serving.precision}, {rows} rows at once, random weights, "
        f"guidance {GUIDANCE:g}"
    )
    spreads: dict[int, dict[str, Spread]] = {}
    for count in batches:
        make_images(stages, system, count, seed=0)
        taken = [make_images(stages, system, count, seed) for seed in range(1, rounds + 1)]
        each = {name: Spread([1e3 * seconds[name] / count for seconds in taken]) for name in STAGES}
        each["end to end"] = Spread([1e3 * sum(seconds.values()) / count for seconds in taken])
        spreads[count] = each
    table = Table(title=f"ms an image, median (least-most) of {rounds}")
    for column in ("", *(f"{count} at once" for count in batches), f"floor on {chip}"):
        table.add_column(column, justify="left" if not column else "right")
    floors = {name: stage.cost.floor_ms for name, stage in description.stages.items()}
    for name, floor in (floors | {"end to end": description.cost.floor_ms}).items():
        table.add_row(name, *(f"{each[name]:.1f}" for each in spreads.values()), f"{floor:.1f}")
    Console(width=100).print(table)
    if preset == "muse-3b" and 1 in spreads:
        print(f"one image: {spreads[1]['end to end'].median / 1e3:.3f} s (target <= {TARGET_S} s)")


if __name__ == "__main__":
    app()
