"""Tests for the optimizers: the decay is scaled by the learning rate."""

import jax.numpy as jnp
import numpy as np
import pytest

from training.optimizers import Recipe, adafactor, clip_by_matrix_rms


def recipe(**changes: float) -> Recipe:
    """A recipe of constant length with the paper's decays."""
    settings = {
        "steps": 1000,
        "batch_size": 1,
        "learning_rate": 1e-4,
        "warm_up_steps": 1,
        "first_decay": 0.9,
        "second_decay": 0.96,
        "weight_decay": 0.045,
    }
    return Recipe(**(settings | changes))


def test_a_step_without_gradient_shrinks_weights_by_rate_times_decay() -> None:
    optimizer = adafactor(recipe())
    weights = {"kernel": jnp.ones((4, 4))}
    state = optimizer.init(weights)
    nothing = {"kernel": jnp.zeros((4, 4))}
    _, state = optimizer.update(nothing, state, weights)  # the warm-up's step, at rate 0
    update, _ = optimizer.update(nothing, state, weights)
    np.testing.assert_allclose(update["kernel"], -1e-4 * 0.045, rtol=1e-3)


def test_the_rate_rises_then_falls_to_zero() -> None:
    schedule = recipe(warm_up_steps=100).schedule()
    rates = [float(schedule(step)) for step in (0, 50, 100, 550, 1000)]
    np.testing.assert_allclose(rates, [0, 5e-5, 1e-4, 5e-5, 0], atol=1e-7)


@pytest.mark.parametrize(
    "changes", [{"warm_up_steps": 1000}, {"warm_up_steps": 0}, {"first_decay": 1.0}]
)
def test_a_recipe_that_makes_no_sense_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        recipe(**changes)


def test_a_large_update_of_one_layer_leaves_the_other_layers_alone() -> None:
    updates = {
        "blocks.mlp.kernel": jnp.stack([jnp.full((4, 4), 0.5), jnp.full((4, 4), 10.0)]),
        "head.kernel": jnp.full((4, 4), 3.0),
    }
    clip = clip_by_matrix_rms(1.0)
    clipped, _ = clip.update(updates, clip.init(updates))
    np.testing.assert_allclose(clipped["blocks.mlp.kernel"][0], 0.5)
    np.testing.assert_allclose(clipped["blocks.mlp.kernel"][1], 1.0)
    np.testing.assert_allclose(clipped["head.kernel"], 1.0)
