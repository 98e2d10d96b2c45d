"""Point 3 of the method: classifier-free guidance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from services.decoding.guidance import guidance_at, guided

CONDITIONAL = jax.random.normal(jax.random.key(0), (1, 3, 5))
UNCONDITIONAL = jax.random.normal(jax.random.key(1), (1, 3, 5))


def test_a_scale_of_zero_is_exactly_the_conditional_model() -> None:
    assert np.array_equal(guided(CONDITIONAL, UNCONDITIONAL, jnp.zeros(1)), CONDITIONAL)


def test_guidance_moves_away_from_the_unconditional_logits_by_equation_1() -> None:
    expected = (1 + 2.5) * CONDITIONAL - 2.5 * UNCONDITIONAL

    np.testing.assert_allclose(
        guided(CONDITIONAL, UNCONDITIONAL, jnp.array([2.5])), expected, rtol=1e-6
    )


def test_guidance_before_a_last_layer_with_a_bias_is_guidance_after_it() -> None:
    kernel = jax.random.normal(jax.random.key(2), (5, 7))
    bias = jax.random.normal(jax.random.key(3), (7,))
    scale = jnp.array([4.0])

    before = guided(CONDITIONAL, UNCONDITIONAL, scale) @ kernel + bias
    after = guided(CONDITIONAL @ kernel + bias, UNCONDITIONAL @ kernel + bias, scale)

    np.testing.assert_allclose(before, after, atol=1e-4)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(0.0, 6.0, [0.0, 2.0, 4.0, 6.0]), (3.0, 3.0, [3.0, 3.0, 3.0, 3.0])],
)
def test_the_scale_grows_linearly_to_its_final_value(
    first: float, last: float, expected: list[float]
) -> None:
    steps = jnp.arange(4)
    scales = guidance_at(steps, jnp.full(4, 4), jnp.full(4, first), jnp.full(4, last))

    np.testing.assert_allclose(scales, expected, rtol=1e-6)


def test_a_single_step_has_the_final_scale() -> None:
    scale = guidance_at(jnp.zeros(1, int), jnp.ones(1, int), jnp.zeros(1), jnp.full(1, 4.0))

    assert scale.tolist() == [4.0]
