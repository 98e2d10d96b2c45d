"""Vector quantisation: the nearest code of a codebook."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

# Positions of each image searched at a time. The table of distances is this by the codebook's size:
# 8192 codes take 4 MB an image in float32, where a whole 64x64 grid would take 134 MB.
SEARCH_CHUNK = 128


def nearest_codes(
    vectors: Float[Array, "B N C"], codebook: Float[Array, "V C"], *, chunk: int = SEARCH_CHUNK
) -> Int[Array, "B N"]:
    """Finds the code at the least Euclidean distance to each vector, ties to the lower id.

    It searches `chunk` positions of every image at a time, which bounds memory and leaves each
    image on the device that has it. No device rounds the factors of its products, as a TPU by
    default does to bfloat16 and a GPU to TF32: other codes would be nearest.

    Source: van den Oord et al. 2017, "Neural Discrete Representation Learning", equation 1.
    """
    vectors, codebook = vectors.astype(jnp.float32), codebook.astype(jnp.float32)
    half_norms = 0.5 * jnp.sum(codebook**2, axis=-1)

    def search(block: Float[Array, "B chunk C"]) -> Int[Array, "B chunk"]:
        # |v - c|^2 / 2 without |v|^2, which is the same for every code.
        products = jnp.matmul(block, codebook.T, precision=jax.lax.Precision.HIGHEST)
        return jnp.argmin(half_norms - products, axis=-1).astype(jnp.int32)

    images, count, width = vectors.shape
    if count <= chunk:
        return search(vectors)
    padded = jnp.pad(vectors, ((0, 0), (0, -count % chunk), (0, 0)))
    blocks = padded.reshape(images, -1, chunk, width).swapaxes(0, 1)
    return jax.lax.map(search, blocks).swapaxes(0, 1).reshape(images, -1)[:, :count]


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
        vectors = features.reshape(features.shape[0], -1, features.shape[-1])
        return nearest_codes(vectors, self.codebook[...]).reshape(features.shape[:-1])

    def codes(self, ids: Int[Array, "B h w"]) -> Float[Array, "B h w C"]:
        """Returns the code of each id."""
        return self.codebook[...][ids]
