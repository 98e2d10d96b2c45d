"""Winograd convolution with a 3 x 3 kernel: sixteen matrix products, 2.25 times fewer operations.

A tile of 2 x 2 outputs depends on 4 x 4 inputs. Winograd's method multiplies sums and differences
of the inputs element by element with sums of the kernel's weights, and adds the products up to the
outputs: 16 multiplications where the definition has 36. Each of the 16 is a matrix product over all
tiles and channels. An output is computed from the 3 x 3 inputs it depends on and no other, and
rounded about as often as a direct sum: the two differ by 1e-5 of the outputs' standard deviation.
(Larger tiles need fewer multiplications, but mix weights of very different size and round ten times
as coarsely.)

Source: Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.1.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from services.nn.bf16_matmul import bf16_matmul


def winograd(
    padded: Float[Array, "B h+2 w+2 C"], kernel: Float[Array, "3 3 C D"], *, bf16_factors: bool
) -> Float[Array, "B h w D"]:
    """Convolves features with a border of one pixel, with a stride of 1 and without padding.

    Args:
        padded: The features.
        kernel: The kernel.
        bf16_factors: Whether the factors of the sixteen products are rounded to bfloat16.
    """
    height, width = padded.shape[1] - 2, padded.shape[2] - 2
    odd = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
    even = jnp.pad(padded, odd) if height % 2 or width % 2 else padded

    products = [
        [
            matrix_product(inputs, weight, bf16_factors=bf16_factors)
            for inputs, weight in zip(
                _of_inputs(*lines_of_tiles(tiles, axis=2)), _of_weights(*weights), strict=True
            )
        ]
        for tiles, weights in zip(
            _of_inputs(*lines_of_tiles(even, axis=1)), _of_weights(*kernel), strict=True
        )
    ]
    by_column = [_of_products(*column) for column in zip(*products, strict=True)]
    rows = [_interleaved(*_of_products(*row), axis=2) for row in zip(*by_column, strict=True)]
    return _interleaved(*rows, axis=1)[:, :height, :width]


def matrix_product(
    features: Float[Array, "B h w C"], matrix: Float[Array, "C D"], *, bf16_factors: bool
) -> Float[Array, "B h w D"]:
    """Multiplies each vector by a matrix, as one product of two matrices.

    XLA copies features of four axes for the product that is the matrix's gradient.
    """
    vectors = features.reshape(-1, features.shape[-1])
    product = bf16_matmul(vectors, matrix) if bf16_factors else vectors @ matrix
    return product.reshape(*features.shape[:-1], -1)


def lines_of_tiles(
    features: Float[Array, "B h+2 w+2 C"], *, axis: int
) -> tuple[Array, Array, Array, Array]:
    """Returns the four lines of every tile along an axis, whose size is even.

    Line i of tile n is at 2 n + i. The lines are parts of the even ones and of the odd ones, so
    that their gradient is put together of two arrays; that of slices with a stride of 2 is
    spread over zeros four times.
    """
    pairs = features.shape[axis] // 2
    split = (*features.shape[:axis], pairs, 2, *features.shape[axis + 1 :])
    even, odd = (
        jnp.squeeze(half, axis + 1) for half in jnp.split(features.reshape(split), 2, axis + 1)
    )

    def of_tiles(lines: Array, first: int) -> Array:
        return lax.slice_in_dim(lines, first, first + pairs - 1, axis=axis)

    return of_tiles(even, 0), of_tiles(odd, 0), of_tiles(even, 1), of_tiles(odd, 1)


def _interleaved(first: Array, second: Array, *, axis: int) -> Array:
    stacked = jnp.stack([first, second], axis + 1)
    return stacked.reshape(*first.shape[:axis], -1, *first.shape[axis + 1 :])


def _of_inputs(first: Array, second: Array, third: Array, fourth: Array) -> tuple[Array, ...]:
    """Transforms four inputs in a line into the four input factors of the products."""
    return first - third, second + third, third - second, second - fourth


def _of_weights(first: Array, second: Array, third: Array) -> tuple[Array, ...]:
    """Transforms three weights in a line into the four weight factors of the products."""
    outer = first + third
    return first, (outer + second) / 2, (outer - second) / 2, third


def _of_products(first: Array, second: Array, third: Array, fourth: Array) -> tuple[Array, Array]:
    """Transforms four products in a line into two outputs."""
    return first + second + third, second - third - fourth
