"""Products in bfloat16 are those in float32, but for the rounding of their factors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from services.base.model import BaseTransformer
from services.nn.attention import HeadNorm
from services.nn.bf16_matmul import RoundsFactors, bf16_matmul, transposed, with_bf16_factors
from services.nn.projection import Projection
from services.presets import preset

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


@pytest.mark.parametrize("shape", [(5, 100), (3, 64), (1, 1)])
def test_a_matrix_is_transposed_and_rounded_to_bfloat16(shape: tuple[int, int]) -> None:
    matrix = jax.random.normal(jax.random.key(0), shape)
    np.testing.assert_array_equal(transposed(matrix), matrix.T.astype(jnp.bfloat16))


def logits(model: BaseTransformer) -> jax.Array:
    """Returns the logits of a model for two rows without any known token."""
    text = jax.random.normal(jax.random.key(1), (2, 3, TINY.text_hidden))
    mask, conditional = jnp.ones((2, 3), bool), jnp.ones(2, bool)
    tokens = jnp.full((2, TINY.tokens), TINY.vocabulary)
    return model.logits(tokens, model.context(text, mask), conditional)


@pytest.mark.parametrize("kind", [Projection, RoundsFactors])
def test_a_model_rounds_the_factors_of_its_products_and_its_parameters_stay_float32(
    kind: type[RoundsFactors],
) -> None:
    model = with_bf16_factors(BaseTransformer(TINY, rngs=nnx.Rngs(0)), kind=kind)
    layers = [m for _, m in nnx.iter_graph(model) if isinstance(m, RoundsFactors)]
    assert {type(layer) for layer in layers} == {Projection, HeadNorm}
    assert all(layer.bf16_factors == isinstance(layer, kind) for layer in layers)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))

    exact = logits(BaseTransformer(TINY, rngs=nnx.Rngs(0)))
    rough = logits(model)
    assert rough.dtype == jnp.float32
    assert not np.array_equal(rough, exact)
    np.testing.assert_allclose(rough, exact, atol=0.02 * float(jnp.abs(exact).max()))


def test_what_attention_multiplies_is_bfloat16() -> None:
    model = with_bf16_factors(BaseTransformer(TINY, rngs=nnx.Rngs(0)))
    context = model.context(jnp.ones((1, 3, TINY.text_hidden)), jnp.ones((1, 3), bool))
    assert {context.keys.dtype, context.values.dtype} == {jnp.dtype(jnp.bfloat16)}


def test_bfloat16_parameters_give_what_float32_ones_of_the_same_numbers_give() -> None:
    wide = with_bf16_factors(BaseTransformer(TINY, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(wide)
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state)
    same = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), rounded)
    of_narrow, of_wide = (logits(nnx.merge(graph, each)) for each in (rounded, same))
    np.testing.assert_array_equal(of_narrow, of_wide)
