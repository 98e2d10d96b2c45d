"""Products in bfloat16 are those in float32, but for the rounding of their factors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from services.base.model import BaseTransformer
from services.nn.projection import Projection
from services.presets import preset
from training.bf16_matmul import bf16_matmul, with_bf16_matmul

TINY = preset("tiny").base


@pytest.mark.parametrize("shape", [(6, 4, 10), (7, 10, 4), (1, 3, 3), (2, 8, 8)])
def test_a_product_and_its_gradients_sum_the_rounded_factors_in_float32(
    shape: tuple[int, int, int],
) -> None:
    rows, inner, outer = shape
    keys = jax.random.split(jax.random.key(0), 3)
    inputs, kernel, gradient = (
        jax.random.normal(key, size)
        for key, size in zip(keys, ((rows, inner), (inner, outer), (rows, outer)), strict=True)
    )
    made, back = jax.vjp(bf16_matmul, inputs, kernel)
    of_inputs, of_kernel = back(gradient)
    x, w, g = (
        np.asarray(factor.astype(jnp.bfloat16), np.float64) for factor in (inputs, kernel, gradient)
    )
    for got, expected in ((made, x @ w), (of_inputs, g @ w.T), (of_kernel, x.T @ g)):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    assert not np.allclose(made, np.asarray(inputs) @ np.asarray(kernel), rtol=1e-5, atol=1e-5)


def test_every_projection_of_a_model_multiplies_so_and_its_parameters_stay_float32() -> None:
    model = with_bf16_matmul(BaseTransformer(TINY, rngs=nnx.Rngs(0)))
    plain = BaseTransformer(TINY, rngs=nnx.Rngs(0))
    projections = [m for _, m in nnx.iter_graph(model) if isinstance(m, Projection)]
    assert len(projections) == len(
        [m for _, m in nnx.iter_graph(plain) if isinstance(m, Projection)]
    )
    assert all(projection.kernel[...].dtype == jnp.float32 for projection in projections)

    text = jax.random.normal(jax.random.key(1), (2, 3, TINY.text_hidden))
    mask, conditional = jnp.ones((2, 3), bool), jnp.ones(2, bool)
    tokens = jnp.full((2, TINY.tokens), TINY.vocabulary)
    rough, exact = (
        each.logits(tokens, each.context(text, mask), conditional) for each in (model, plain)
    )
    assert not np.array_equal(rough, exact)
    np.testing.assert_allclose(rough, exact, atol=0.02 * float(jnp.abs(exact).max()))
