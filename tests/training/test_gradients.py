"""A batch computed in parts has the gradients of the batch as a whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from training.gradients import accumulated_gradients


@pytest.mark.parametrize("parts", [1, 2, 6])
def test_parts_add_up_to_the_whole(parts: int) -> None:
    key = jax.random.key(0)
    batch = {"x": jax.random.normal(key, (12, 3)), "counted": jnp.arange(12) % 5 < 3}
    params = {"kernel": jnp.arange(3.0)}
    total = batch["counted"].sum()

    def loss(params: dict[str, Array], part: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        errors = jnp.tanh(part["x"] @ params["kernel"]) ** 2 * part["counted"]
        return errors.sum() / total, {"counted": part["counted"].sum()}

    (whole, _), expected = jax.value_and_grad(loss, has_aux=True)(params, batch)
    (value, further), gradients = accumulated_gradients(loss, params, batch, parts)

    np.testing.assert_allclose(value, whole, rtol=1e-6)
    np.testing.assert_allclose(gradients["kernel"], expected["kernel"], rtol=1e-5)
    assert int(further["counted"]) == int(total)
