"""One image at the size of aMUSEd-256, to its pixels: ours, and diffusers' own pipeline.

`python -m benchmarks.amused` (`--tiny` to see that it runs). Random weights, float32, two CPUs, in
turns. How to install the peer: benchmarks/README.md.

Equal: about 603 M parameters in the transformer, 22 layers 1024 wide with 16 heads, 256 tokens of
8192 codes, a text of 77 x 768, 12 steps with guidance, a VQGAN of the same channels to 256 x 256
pixels. Not equal: aMUSEd has convolutions before and after its layers, and a quarter of each
layer's parameters modulate norms, which costs next to nothing an image; ours has them in a wider
MLP, so ours computes more. aMUSEd makes the text's keys and values at every step, hears an empty
prompt in its other branch, and has two residual blocks more at the VQGAN's lowest resolution. The
text encoders are not part of either.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from cyclopts import App
from flax import nnx
from jaxtyping import Array, Int, UInt8

from benchmarks.measuring import conditions, in_turns, limit_cpus
from benchmarks.ours import OurDecode, random_text
from services.base.config import BaseConfig
from services.decoding.state import Sampling
from services.tokenizer.config import TokenizerConfig
from services.tokenizer.model import Tokenizer
from tools.description import arithmetic

BASE = BaseConfig(
    grid=16,
    vocabulary=8192,
    hidden=1024,
    layers=22,
    heads=16,
    mlp=8896,
    text_hidden=768,
    text_length=77,
)
TOKENIZER = TokenizerConfig(
    image_size=256,
    base_channels=128,
    channel_multipliers=(1, 2, 2, 4, 6),
    residual_blocks=2,
    encoder_kernels=(3, 3, 3, 3, 3),
    decoder_base_channels=128,
    decoder_residual_blocks=3,
    codebook_size=8192,
    code_dim=64,
)
TINY_BASE = BaseConfig(
    grid=16,
    vocabulary=8192,
    hidden=32,
    layers=2,
    heads=2,
    mlp=64,
    text_hidden=768,
    text_length=77,
)
TINY_TOKENIZER = TokenizerConfig(
    image_size=256,
    base_channels=8,
    channel_multipliers=(1, 1, 1, 1, 1),
    residual_blocks=1,
    encoder_kernels=(3, 3, 3, 3, 3),
    decoder_base_channels=8,
    decoder_residual_blocks=1,
    codebook_size=8192,
    code_dim=64,
)
CPUS = 2
STEPS, GUIDANCE = 12, 9.0  # the pipeline's own: 12 and a scale of 10

app = App(help=__doc__)


def pixels_of(config: TokenizerConfig) -> Callable[[Int[np.ndarray, " N"]], np.ndarray]:
    """Returns a tokenizer's decoding of one grid, compiled at its first call, as its engine has it.

    Args:
        config: Its shape; weights are random.
    """
    graph, state = nnx.split(Tokenizer(config, rngs=nnx.Rngs(0)))

    @jax.jit
    def decode(state: nnx.State, ids: Int[Array, "h w"]) -> UInt8[Array, "h w 3"]:
        image = nnx.merge(graph, state).decode(ids[None])[0]
        return jnp.round((image + 1.0) * 127.5).astype(jnp.uint8)

    return lambda ids: np.asarray(decode(state, ids.reshape(config.grid, config.grid)))


@app.default
def main(*, rounds: int = 3, tiny: bool = False) -> None:
    """Prints seconds an image of both, their ratio and what each computes.

    Parameters
    ----------
    rounds
        Timed images of each.
    tiny
        Tiny shapes, to see that it runs; its figures mean nothing.
    """
    limit_cpus(CPUS)
    import torch

    from benchmarks.peers.amused import PUBLISHED, SMALL, AmusedDecode

    torch.set_num_threads(CPUS)
    base, tokenizer = (TINY_BASE, TINY_TOKENIZER) if tiny else (BASE, TOKENIZER)
    print(conditions("jax", "flax", "torch", "diffusers"))
    print(f"{STEPS} steps, guidance {GUIDANCE:g}, float32, random weights, {base}, {tokenizer}")
    ours, text, decode = OurDecode(base), random_text(base), pixels_of(tokenizer)
    theirs = AmusedDecode(SMALL if tiny else PUBLISHED)
    sampling = Sampling(steps=STEPS, guidance_scale=GUIDANCE)
    parameters = sum(value.size for value in ours.parameters.values())
    flops = arithmetic.base_decode(base).image(STEPS) + arithmetic.tokenizer_decode(tokenizer)
    their_flops = theirs.flops(steps=STEPS, guidance_scale=GUIDANCE)
    print(
        f"ours: {parameters / 1e6:.1f} M parameters, {flops / 1e9:.0f} GFLOP an image; "
        f"aMUSEd: {theirs.parameters / 1e6:.1f} M, {their_flops / 1e9:.0f} GFLOP"
    )
    contenders: dict[str, Callable[[], np.ndarray]] = {
        "ours": lambda: decode(ours.image(text, sampling)),
        "diffusers": lambda: theirs.image(steps=STEPS, guidance_scale=GUIDANCE),
    }
    seconds = in_turns(contenders, rounds=rounds)
    for name, spread in seconds.items():
        print(f"{name:10} {spread:.2f} s an image, median (min-max) of {rounds}")
    print(f"ratio ours / diffusers: {seconds['ours'].median / seconds['diffusers'].median:.2f}")


if __name__ == "__main__":
    app()
