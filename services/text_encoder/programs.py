"""The programs of the text encoder: one function, for each length bucket."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, BFloat16, Bool, Int

from services.nn.compiling import Program
from services.text_encoder.families import AnyTextEncoderConfig


def embed_programs(
    graph: nnx.GraphDef, parameters: nnx.State, config: AnyTextEncoderConfig, *, rows: int
) -> dict[int, Program]:
    """Returns the programs of an encoder by length bucket, all of one function; compiles nothing.

    Args:
        graph: Graph of a text encoder, from `nnx.split`.
        parameters: The encoder's parameters, or their shapes.
        config: The encoder's configuration.
        rows: Texts of one call.
    """

    def embed(
        parameters: nnx.State, ids: Int[Array, "B T"], mask: Bool[Array, "B T"]
    ) -> BFloat16[Array, "B T D"]:
        return nnx.merge(graph, parameters)(ids, mask).astype(jnp.bfloat16)

    return {
        length: Program(
            function=embed,
            shapes=(
                parameters,
                jax.ShapeDtypeStruct((rows, length), jnp.int32),
                jax.ShapeDtypeStruct((rows, length), jnp.bool_),
            ),
            takes=(None, None, None),
        )
        for length in length_buckets(config)
    }


def length_buckets(config: AnyTextEncoderConfig) -> tuple[int, ...]:
    """Returns the lengths that texts are padded to, in tokens: doubling, up to the longest text."""
    return doubling(config.shortest_bucket, config.maximum_length)


def doubling(first: int, last: int) -> tuple[int, ...]:
    """Returns `first`, twice that and so on up to `last`, which ends the list."""
    buckets = []
    while first < last:
        buckets.append(first)
        first *= 2
    return (*buckets, last)
