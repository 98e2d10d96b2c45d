"""A convolution made of sixteen products is the convolution."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jaxtyping import Array, Float
from numpy.testing import assert_allclose, assert_array_equal

from services.nn.winograd import winograd
from services.tokenizer.model import LEAST_INPUTS, Convolution


def features_and_kernel(height: int, width: int) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Returns random features of 6 channels with a border, and a kernel to 5."""
    random = np.random.default_rng(height * 100 + width)
    features = random.standard_normal((2, height + 2, width + 2, 6), dtype=np.float32)
    return jnp.asarray(features), jnp.asarray(random.standard_normal((3, 3, 6, 5), np.float32))


def in_products(padded: Float[Array, "..."], kernel: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns Winograd's convolution with float32 factors."""
    return winograd(padded, kernel, bf16_factors=False)


def convolved(padded: Float[Array, "..."], kernel: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns XLA's convolution."""
    return jax.lax.conv_general_dilated(
        padded, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize("size", [(4, 4), (8, 6), (1, 1), (5, 2), (2, 7), (3, 3)])
def test_it_is_the_convolution_at_even_and_odd_sizes(size: tuple[int, int]) -> None:
    padded, kernel = features_and_kernel(*size)
    made = in_products(padded, kernel)
    assert made.shape == (2, *size, 5)
    assert_allclose(made, convolved(padded, kernel), atol=2e-5)


def test_its_gradients_are_those_of_the_convolution() -> None:
    padded, kernel = features_and_kernel(4, 6)

    def loss(padded: Array, kernel: Array, *, products: bool) -> Array:
        return ((in_products if products else convolved)(padded, kernel) ** 2).sum()

    made, expected = (
        jax.grad(loss, (0, 1))(padded, kernel, products=products) for products in (True, False)
    )
    for ours, theirs in zip(made, expected, strict=True):
        assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


def test_an_output_depends_on_its_nine_inputs_alone() -> None:
    padded, kernel = features_and_kernel(6, 6)
    before = in_products(padded, kernel)
    after = in_products(padded.at[:, 3, 3].add(100.0), kernel)
    far = np.ones((6, 6), bool)
    far[1:4, 1:4] = False
    assert_array_equal(np.asarray(after)[:, far], np.asarray(before)[:, far])
    assert (after != before)[:, ~far].all()


@pytest.mark.parametrize(("kernel", "strides"), [(1, 1), (3, 1), (3, 2), (2, 2)])
def test_a_layer_made_of_products_is_the_layer_with_its_bias(
    kernel: int, strides: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: dict[str, Any] = {"rngs": nnx.Rngs(0), "dtype": jnp.float32, "param_dtype": jnp.float32}
    layer = Convolution(LEAST_INPUTS, 8, kernel, strides=strides, **kinds)
    layer.bias[...] = jnp.arange(8.0)
    features = jax.random.normal(jax.random.key(1), (2, 6, 4, LEAST_INPUTS))
    monkeypatch.setattr(layer, "in_products", True)
    made = layer(features)
    monkeypatch.setattr(layer, "in_products", False)
    assert_allclose(made, layer(features), atol=1e-5)
