"""Convolution with a 3 x 3 kernel as one matrix product, of the patches that outputs depend on.

For kernels of few channels and strides of 2, where Winograd's method has little or nothing to save.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from services.nn.winograd import lines_of_tiles, matrix_product


def convolve_patches(
    padded: Float[Array, "B h w C"],
    kernel: Float[Array, "3 3 C D"],
    *,
    stride: int,
    bf16_factors: bool,
) -> Float[Array, "B h2 w2 D"]:
    """Convolves features without padding.

    Args:
        padded: The features.
        kernel: The kernel.
        stride: 1 or 2.
        bf16_factors: Whether the factors of the product are rounded to bfloat16.
    """
    patches = jnp.concatenate(
        [part for row in _lines(padded, 1, stride) for part in _lines(row, 2, stride)], axis=-1
    )
    return matrix_product(patches, kernel.reshape(-1, kernel.shape[-1]), bf16_factors=bf16_factors)


def _lines(features: Float[Array, "B h w C"], axis: int, stride: int) -> list[Array]:
    """Returns the three lines of every patch along an axis."""
    size = features.shape[axis]
    if stride == 1:
        return [lax.slice_in_dim(features, i, size - 2 + i, axis=axis) for i in range(3)]
    odd = [(0, size % 2 if each == axis else 0) for each in range(4)]
    return list(lines_of_tiles(jnp.pad(features, odd), axis=axis)[:3])
