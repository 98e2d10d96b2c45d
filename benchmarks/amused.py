"""One image of aMUSEd-256, to its pixels: ours, and diffusers' own pipeline.

`python -m benchmarks.amused` (`--tiny` to see that it runs; `--precision bfloat16`). The same two
networks at the published size, random weights, two CPUs, in turns. How to install the peer:
benchmarks/README.md.

Equal: the U-ViT and the VQGAN, 256 tokens of 8192 codes, a text of 77 x 768 and a pooled vector, 12
steps with guidance, 256 x 256 pixels. Not equal: ours computes once an image what layers get of the
text, diffusers at every step; ours multiplies by the last matrix once a step, after guidance,
diffusers twice. The text encoder is not part of either.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cyclopts import App
from flax import nnx
from jaxtyping import Array, Int

from benchmarks.measuring import conditions, in_turns, limit_cpus
from benchmarks.ours import OurDecode, Text, random_text
from services.base.uvit_config import UVitConfig
from services.decoding.state import Sampling
from services.runtime.checkpoints.precision import Precision
from services.tokenizer.programs import served_tokenizer, tokenizer_programs
from services.tokenizer.vqgan_config import VqganConfig
from training.flops import flops_of

BASE = UVitConfig(
    grid=16,
    vocabulary=8192,
    text_hidden=768,
    text_length=78,
    hidden=1024,
    layers=22,
    heads=16,
    mlp=2816,
    image_size=256,
    embedding=768,
    channels=768,
    block_heads=12,
    blocks=3,
    halved=False,
    condition_width=256,
)
TINY_BASE = replace(
    BASE,
    hidden=64,
    layers=2,
    heads=2,
    mlp=64,
    embedding=64,
    channels=32,
    block_heads=2,
    blocks=1,
)


def _tokenizer(channels: tuple[int, ...], residual_blocks: int) -> VqganConfig:
    return VqganConfig(
        image_size=256,
        stem_channels=channels[0],
        channels=channels,
        residual_blocks=residual_blocks,
        decoder_residual_blocks=residual_blocks + 1,
        attention_levels=(),
        middle_attention=False,
        latent_channels=64,
        codebook_size=8192,
        code_dim=64,
        l2_normalised_codes=False,
        signed_pixels=False,
    )


TOKENIZER = _tokenizer((128, 256, 256, 512, 768), 2)
TINY_TOKENIZER = _tokenizer((32,) * 5, 1)
CPUS = 2
STEPS, GUIDANCE = 12, 9.0  # the pipeline's own: 12 and a scale of 10
TARGETS = {"float32": 0.35, "bfloat16": 0.9}  # of ours in bfloat16 over diffusers' in each

app = App(help=__doc__)


class Pixels:
    """A tokenizer's decoding of one grid, compiled at its first call, as its engine has it."""

    def __init__(self, config: VqganConfig, precision: Precision) -> None:
        """Draws its weights at random."""
        graph, self._state = nnx.split(served_tokenizer(config, precision))
        self._grid, self._program = config.grid, tokenizer_programs(graph, self._state, config)
        self._decode = self._program.decode.jit()

    def __call__(self, ids: Int[np.ndarray, " N"]) -> np.ndarray:
        """Returns the pixels of a grid of tokens."""
        return np.asarray(self._decode(self._state, ids.reshape(self._grid, self._grid)))

    @property
    def flops(self) -> float:
        """Operations of a decode."""
        return flops_of(self._program.decode.function, *self._program.decode.shapes)


def base_flops(ours: OurDecode, text: Text) -> float:
    """Returns the operations of a decode: its context, and each step with both branches."""
    model: Any = ours.model
    inputs = (jnp.asarray(text.embedding)[None], jnp.asarray(text.mask)[None])
    context = jax.eval_shape(model.context, *inputs)

    def step(tokens: Int[Array, "1 N"], context: Any) -> Array:
        features = model.cfg_batch_features(tokens, context)
        return model.last_layer(features[:1])

    tokens = jax.ShapeDtypeStruct((1, ours.config.tokens), jnp.int32)
    return flops_of(model.context, *inputs) + STEPS * flops_of(step, tokens, context)


@app.default
def main(*, rounds: int = 3, tiny: bool = False, precision: Precision = "float32") -> None:
    """Prints seconds an image of both, their ratio and what each computes.

    diffusers in float32 takes part in either precision.

    Parameters
    ----------
    rounds
        Timed images of each.
    tiny
        Tiny shapes, to see that it runs; its figures mean nothing.
    precision
        Of the factors of our products, and of diffusers' weights and arithmetic.
    """
    limit_cpus(CPUS)
    import torch

    from benchmarks.peers.amused import PUBLISHED, SMALL, AmusedDecode

    torch.set_num_threads(CPUS)
    base, tokenizer = (TINY_BASE, TINY_TOKENIZER) if tiny else (BASE, TOKENIZER)
    print(conditions("jax", "flax", "torch", "diffusers"))
    print(f"{STEPS} steps, guidance {GUIDANCE:g}, {precision}, random weights, {base}, {tokenizer}")
    ours, text = OurDecode(base, precision=precision), random_text(base)
    pixels = Pixels(tokenizer, precision)
    sampling = Sampling(steps=STEPS, guidance_scale=GUIDANCE, guidance_scale_start=GUIDANCE)
    contenders: dict[str, Callable[[], np.ndarray]] = {
        "ours": lambda: pixels(ours.image(text, sampling))
    }
    theirs = {
        each: AmusedDecode(SMALL if tiny else PUBLISHED, getattr(torch, each))
        for each in dict.fromkeys((precision, "float32"))
    }
    for name, peer in theirs.items():
        contenders[name] = lambda peer=peer: peer.image(steps=STEPS, guidance_scale=GUIDANCE)
    flops = base_flops(ours, text) + pixels.flops
    their_flops = theirs[precision].flops(steps=STEPS, guidance_scale=GUIDANCE)
    parameters = sum(each.size for each in ours.parameters.values())
    print(f"transformer: {parameters / 1e6:.1f} M parameters, ", end="")
    print(f"diffusers' {theirs[precision].parameters / 1e6:.1f} M")
    print(f"an image: ours {flops / 1e9:.0f} GFLOP, diffusers {their_flops / 1e9:.0f} GFLOP")
    seconds = in_turns(contenders, rounds=rounds)
    for name, spread in seconds.items():
        shown = name if name == "ours" else f"diffusers {name}"
        print(f"{shown:18} {spread:.2f} s an image, median (min-max) of {rounds}")
    for name in theirs:
        ratio = seconds["ours"].median / seconds[name].median
        target = f" (target <= {TARGETS[name]:g})" if precision == "bfloat16" else ""
        print(f"ratio ours / diffusers {name}: {ratio:.2f}{target}")


if __name__ == "__main__":
    app()
