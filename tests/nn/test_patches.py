"""A convolution made of one product of patches is the convolution, and so are its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float
from numpy.testing import assert_allclose

from services.nn.patches import convolve_patches


def convolved(padded: Float[Array, "..."], kernel: Float[Array, "..."], *, stride: int) -> Array:
    """Returns XLA's convolution."""
    return jax.lax.conv_general_dilated(
        padded, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(3, 3), (5, 9), (7, 5), (6, 10), (4, 3)])
def test_it_is_the_convolution_and_so_are_its_gradients(stride: int, size: tuple[int, int]) -> None:
    random = np.random.default_rng(sum(size))
    padded = jnp.asarray(random.standard_normal((2, *size, 6), np.float32))
    kernel = jnp.asarray(random.standard_normal((3, 3, 6, 5), np.float32))

    expected, pull_back = jax.vjp(lambda *args: convolved(*args, stride=stride), padded, kernel)
    made, ours = jax.vjp(
        lambda *args: convolve_patches(*args, stride=stride, bf16_factors=False), padded, kernel
    )
    assert_allclose(made, expected, atol=2e-5)
    back = jnp.asarray(random.standard_normal(expected.shape, np.float32))
    for mine, theirs in zip(ours(back), pull_back(back), strict=True):
        assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)
