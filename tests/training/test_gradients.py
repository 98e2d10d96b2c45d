"""A batch computed in parts has the gradients of the batch as a whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from training.gradients import accumulated


@pytest.mark.parametrize("parts", [1, 2, 6])
def test_parts_add_up_to_the_whole(parts: int) -> None:
    key = jax.random.key(0)
    batch = {"x": jax.random.normal(key, (12, 3)), "counted": jnp.arange(12) % 5 < 3}
    kernel = jnp.arange(3.0)
    total = batch["counted"].sum()

    def loss(kernel: Array, part: dict[str, Array]) -> tuple[Array, Array]:
        errors = jnp.tanh(part["x"] @ kernel) ** 2 * part["counted"]
        return errors.sum() / total, errors

    def compute(part: dict[str, Array]) -> tuple[tuple[Array, Array], Array]:
        (value, errors), gradient = jax.value_and_grad(loss, has_aux=True)(kernel, part)
        return (value, gradient), errors

    (whole, expected), errors = compute(batch)
    (value, gradient), rows = accumulated(compute, batch, parts)

    np.testing.assert_allclose(value, whole, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)
    np.testing.assert_allclose(rows, errors, rtol=1e-6)
