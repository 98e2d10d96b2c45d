"""Vector quantisation: the nearest code of a codebook."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

# Vectors searched at a time. The table of distances is this by the codebook's size: 8192 codes
# take 32 MB in float32, where a whole 64x64 grid would take 134 MB an image.
SEARCH_CHUNK = 1024


def nearest_codes(
    vectors: Float[Array, "M C"], codebook: Float[Array, "V C"], *, chunk: int = SEARCH_CHUNK
) -> Int[Array, " M"]:
    """Finds the code at the least Euclidean distance to each vector, ties to the lower id.

    It searches `chunk` vectors at a time, which bounds memory. No device rounds the factors of its
    products, as a TPU by default does to bfloat16 and a GPU to TF32: other codes would be nearest.

    Source: van den Oord et al. 2017, "Neural Discrete Representation Learning", equation 1.
    """
    vectors, codebook = vectors.astype(jnp.float32), codebook.astype(jnp.float32)
    half_norms = 0.5 * jnp.sum(codebook**2, axis=-1)

    def search(block: Float[Array, "chunk C"]) -> Int[Array, "chunk"]:
        # |v - c|^2 / 2 without |v|^2, which is the same for every code.
        products = jnp.matmul(block, codebook.T, precision=jax.lax.Precision.HIGHEST)
        return jnp.argmin(half_norms - products, axis=-1).astype(jnp.int32)

    count = vectors.shape[0]
    if count <= chunk:
        return search(vectors)
    padded = jnp.pad(vectors, ((0, -count % chunk), (0, 0)))
    blocks = padded.reshape(-1, chunk, vectors.shape[-1])
    return jax.lax.map(search, blocks).reshape(-1)[:count]


class Quantizer(nnx.Module):
    """A codebook: features to the ids of their nearest codes, and ids to codes."""

    def __init__(
        self, codes: int, dim: int, *, rngs: nnx.Rngs, param_dtype: DTypeLike = jnp.float32
    ) -> None:
        """Draws a codebook of `codes` rows of width `dim`, each of about unit length."""
        initial = jax.random.normal(rngs.params(), (codes, dim), param_dtype) * dim**-0.5
        self.codebook = nnx.Param(initial)

    def ids(self, features: Float[Array, "B h w C"]) -> Int[Array, "B h w"]:
        """Returns the id of the nearest code at each position."""
        flat = features.reshape(-1, features.shape[-1])
        return nearest_codes(flat, self.codebook[...]).reshape(features.shape[:-1])

    def codes(self, ids: Int[Array, "B h w"]) -> Float[Array, "B h w C"]:
        """Returns the code of each id."""
        return self.codebook[...][ids]
