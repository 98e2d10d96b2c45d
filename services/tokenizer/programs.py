"""The compiled programs of a tokenizer: a picture to tokens, and tokens to a picture."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Int, UInt8

from services.nn.bf16_matmul import with_bf16_factors
from services.nn.compiling import Program
from services.runtime.checkpoints.precision import Precision
from services.tokenizer.families import AnyTokenizer, AnyTokenizerConfig, build_tokenizer


class TokenizerPrograms(NamedTuple):
    """The programs of a tokenizer before they are compiled.

    Attributes:
        encode: Parameters and the pixels of one picture to its tokens.
        decode: Parameters and the tokens of one picture to its pixels.
    """

    encode: Program
    decode: Program


def served_tokenizer(config: AnyTokenizerConfig, precision: Precision) -> AnyTokenizer:
    """Builds a tokenizer as a server computes it.

    Args:
        config: Its configuration, of any family.
        precision: Of the factors of the decoder's products. Encoding is float32: rounding would
            change the nearest code.
    """
    tokenizer = build_tokenizer(config, rngs=nnx.Rngs(0))
    if precision == "bfloat16":
        with_bf16_factors(tokenizer.decoder)
    return tokenizer


def tokenizer_programs(
    graph: nnx.GraphDef, parameters: nnx.State, config: AnyTokenizerConfig
) -> TokenizerPrograms:
    """Returns the programs of a tokenizer; compiles nothing.

    Args:
        graph: Graph of a tokenizer, from `nnx.split`.
        parameters: Its parameters, or their shapes.
        config: Its configuration, whose picture size the programs have.
    """

    def encode(state: nnx.State, pixels: UInt8[Array, "h w 3"]) -> Int[Array, "h w"]:
        images = pixels[None].astype(jnp.float32) / 127.5 - 1.0
        return nnx.merge(graph, state).encode(images)[0]

    def decode(state: nnx.State, ids: Int[Array, "h w"]) -> UInt8[Array, "h w 3"]:
        image = nnx.merge(graph, state).decode(ids[None])[0]
        return jnp.round((image + 1.0) * 127.5).astype(jnp.uint8)

    side, grid = config.image_size, config.grid
    return TokenizerPrograms(
        encode=Program(
            function=encode,
            shapes=(parameters, jax.ShapeDtypeStruct((side, side, 3), jnp.uint8)),
            takes=(None, None),
        ),
        decode=Program(
            function=decode,
            shapes=(parameters, jax.ShapeDtypeStruct((grid, grid), jnp.int32)),
            takes=(None, None),
        ),
    )
