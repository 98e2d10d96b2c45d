"""The two ends of a masked transformer: token ids to vectors, and vectors to logits."""

from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from services.nn.options import LayerOptions
from services.nn.projection import Projection
from services.nn.transformer import Norm

TOKEN_SCALE = 0.5  # standard deviation of a fresh token embedding
LOGIT_SCALE = 0.02  # of the fresh last kernel: a fresh model is nearly undecided


def waves(side: int, hidden: int, *, finest: int) -> Float[np.ndarray, "side hidden"]:
    """Returns sines and cosines of each position's centre along one axis of the image.

    Positions are fractions of the image's side, so that overlapping positions of two grids of
    different resolution have similar embeddings. From there superres learns which low-resolution
    token lies under which high-resolution token.

    Args:
        side: Positions along the axis.
        hidden: Width of the result.
        finest: Half periods of the fastest wave along the axis: at most the side of the coarsest
            grid, or distant positions of that grid would have similar embeddings.
    """
    centres = (np.arange(side) + 0.5) / side
    frequencies = np.pi * np.geomspace(1.0, finest, -(-hidden // 2))
    angles = centres[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)[:, :hidden]


class GridEmbedding(nnx.Module):
    """Embedding of a square grid of ids: the sum of an id, a row and a column embedding."""

    def __init__(
        self, ids: int, grid: int, hidden: int, *, finest: int, **options: Unpack[LayerOptions]
    ) -> None:
        """Draws embeddings for `ids` ids ([MASK] included) on a `grid` x `grid` square.

        The learned positions start as `waves`: rows in one half of the width, columns in the other.
        """
        self.dtype, param_dtype = options["dtype"], options["param_dtype"]
        initial = jax.random.normal(options["rngs"].params(), (ids, hidden), param_dtype)
        self.token = nnx.Param(initial * TOKEN_SCALE)
        half = hidden // 2
        rows, columns = np.zeros((2, grid, hidden))
        rows[:, :half] = waves(grid, half, finest=finest)
        columns[:, half:] = waves(grid, hidden - half, finest=finest)
        self.row = nnx.Param(jnp.asarray(rows, param_dtype))
        self.column = nnx.Param(jnp.asarray(columns, param_dtype))

    def __call__(self, ids: Int[Array, "B N"]) -> Float[Array, "B N D"]:
        """Returns one vector per position, row by row."""
        wide = jnp.promote_types(self.dtype, self.token.dtype)
        row, column = self.row[...].astype(wide), self.column[...].astype(wide)
        positions = row[:, None] + column[None, :]
        tokens = self.token[...][ids].astype(wide)
        embedded = tokens + positions.reshape(1, -1, positions.shape[-1])
        return embedded.astype(self.dtype)


class LogitHead(nnx.Module):
    """An MLP from the residual stream to one float32 logit per code.

    `features` computes all layers but the last one. The last layer is linear, so guidance can be
    applied before it.
    """

    def __init__(self, hidden: int, vocabulary: int, **options: Unpack[LayerOptions]) -> None:
        """Builds hidden -> hidden -> vocabulary with a GELU between, behind norms."""
        self.input_norm = Norm(hidden, **options)
        self.mix = Projection(hidden, hidden, use_bias=False, **options)
        self.output_norm = Norm(hidden, **options)
        self.output = Projection(
            hidden,
            vocabulary,
            kernel_init=nnx.initializers.normal(LOGIT_SCALE),
            preferred_element_type=jnp.float32,
            **options,
        )

    def features(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Returns the input of the last layer."""
        return self.output_norm(jax.nn.gelu(self.mix(self.input_norm(tokens))))

    def logits(self, features: Float[Array, "B N D"]) -> Float[Array, "B N V"]:
        """Returns float32 logits over the codes; [MASK] is not among them.

        The last product multiplies numbers of the model's dtype and accumulates in float32. Its
        result is never rounded to bfloat16, which would tie the top two ids at 3% of positions.
        """
        return self.output(features)
