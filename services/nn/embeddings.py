"""The two ends of a masked transformer: token ids to vectors, and vectors to logits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from services.nn.projection import Projection
from services.nn.transformer import Norm

TOKEN_SCALE = 0.5  # standard deviation of a fresh token embedding
LOGIT_SCALE = 0.02  # of the fresh last kernel: a fresh model is nearly undecided


def waves(side: int, hidden: int, *, finest: int) -> Float[np.ndarray, "side hidden"]:
    """Returns sines and cosines of a place's centre along one axis of the image.

    Places are measured as a share of the image, so that two grids of different resolution have
    about the same numbers where they overlap: the start from which superres learns which
    low-resolution token lies under it.

    Args:
        side: Places along the axis.
        hidden: Width of the result.
        finest: Half periods of the fastest wave along the axis. More than there are places on the
            coarsest grid, and places there that lie apart would look alike.
    """
    centres = (np.arange(side) + 0.5) / side
    frequencies = np.pi * np.geomspace(1.0, finest, -(-hidden // 2))
    angles = centres[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)[:, :hidden]


class GridEmbedding(nnx.Module):
    """Ids of a square grid to vectors: an embedding of the id, of its row and of its column."""

    def __init__(
        self,
        ids: int,
        grid: int,
        hidden: int,
        *,
        finest: int,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
    ) -> None:
        """Draws embeddings for `ids` ids ([MASK] included) on a `grid` x `grid` square.

        The learned positions start as `waves`: rows in one half of the width, columns in the other.
        """
        self.dtype = dtype
        initial = jax.random.normal(rngs.params(), (ids, hidden), param_dtype)
        self.token = nnx.Param(initial * TOKEN_SCALE)
        half = hidden // 2
        rows, columns = np.zeros((2, grid, hidden))
        rows[:, :half] = waves(grid, half, finest=finest)
        columns[:, half:] = waves(grid, hidden - half, finest=finest)
        self.row = nnx.Param(jnp.asarray(rows, param_dtype))
        self.column = nnx.Param(jnp.asarray(columns, param_dtype))

    def __call__(self, ids: Int[Array, "B N"]) -> Float[Array, "B N D"]:
        """Returns one vector per place, row by row."""
        positions = self.row[...][:, None] + self.column[...][None, :]
        embedded = self.token[...][ids] + positions.reshape(1, -1, positions.shape[-1])
        return embedded.astype(self.dtype)


class LogitHead(nnx.Module):
    """An MLP from the residual stream to one logit per code, in float32.

    `features` is all of it but the last, linear layer, before which guidance can be applied.
    """

    def __init__(
        self,
        hidden: int,
        vocabulary: int,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
    ) -> None:
        """Builds hidden -> hidden -> vocabulary with a GELU between, behind norms."""
        kinds: dict[str, Any] = {"rngs": rngs, "dtype": dtype, "param_dtype": param_dtype}
        self.input_norm = Norm(hidden, **kinds)
        self.mix = Projection(hidden, hidden, use_bias=False, **kinds)
        self.output_norm = Norm(hidden, **kinds)
        self.output = Projection(
            hidden, vocabulary, kernel_init=nnx.initializers.normal(LOGIT_SCALE), **kinds
        )

    def features(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Returns what the last layer takes."""
        return self.output_norm(jax.nn.gelu(self.mix(self.input_norm(tokens))))

    def logits(self, features: Float[Array, "B N D"]) -> Float[Array, "B N V"]:
        """Returns logits over the codes; [MASK] is not among them."""
        return self.output(features).astype(jnp.float32)
