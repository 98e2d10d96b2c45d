"""The optimizers: what a step changes, and by how much."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from training.optimizers import (
    Recipe,
    adafactor,
    clip_by_matrix_rms,
    muon,
    orthogonal,
    transformer_optimizer,
)


def recipe(**changes: Any) -> Recipe:
    """A recipe of constant length with the paper's decays."""
    settings: dict[str, Any] = {
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


def test_muon_moves_every_direction_of_each_layer_alike_and_scales_by_adam() -> None:
    optimizer = muon(recipe(learning_rate=0.5, weight_decay=0.0))
    random = np.random.default_rng(0)
    stretched = random.normal(size=(2, 16, 48)) * np.geomspace(1, 30, 48)
    gradients = {
        "blocks.mlp.kernel": jnp.asarray(stretched * [[[1.0]], [[1e-3]]]),
        "blocks.norm.scale": jnp.asarray(random.normal(size=(2, 16))),
        "embedding.token": jnp.asarray(random.normal(size=(8, 16))),
    }
    weights = {name: jnp.zeros_like(value) for name, value in gradients.items()}
    state = optimizer.init(weights)
    _, state = optimizer.update(gradients, state, weights)  # the warm-up's step, at rate 0
    step, _ = optimizer.update(gradients, state, weights)

    spread = np.linalg.svd(stretched, compute_uv=False)
    assert (spread[:, 0] / spread[:, -1] > 5).all()
    moved = np.linalg.svd(np.asarray(step["blocks.mlp.kernel"]), compute_uv=False)
    assert (moved[:, 0] / moved[:, -1] < 2).all()
    np.testing.assert_allclose(
        np.sqrt(np.mean(step["blocks.mlp.kernel"] ** 2, axis=(1, 2))), 0.5 * 0.2, rtol=0.25
    )
    for name in ("blocks.norm.scale", "embedding.token"):
        size = float(jnp.abs(step[name]).mean())  # above the rate by Nesterov's momentum
        assert 0.5 <= size < 0.6
        np.testing.assert_allclose(step[name], -size * np.sign(gradients[name]), rtol=1e-3)


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_an_orthogonal_matrix_has_the_directions_of_the_given_one(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(1).normal(size=shape)
    left, stretched, right = np.linalg.svd(matrix, full_matrices=False)
    made = np.asarray(orthogonal(jnp.asarray(matrix * 1e-3, jnp.float32)))
    along = left.T @ made @ right.T
    np.testing.assert_allclose(along, np.diag(np.diag(along)), atol=0.05)
    large = stretched > 0.1 * stretched[0]
    assert (np.abs(np.diag(along)[large] - 0.95) < 0.3).all()


def test_muon_shrinks_weights_by_rate_times_decay() -> None:
    optimizer = transformer_optimizer(recipe(optimizer="muon"))
    weights = {"blocks.mlp.kernel": jnp.ones((1, 4, 4)), "head.kernel": jnp.ones((4, 4))}
    nothing = {name: jnp.zeros_like(value) for name, value in weights.items()}
    _, state = optimizer.update(nothing, optimizer.init(weights), weights)
    update, _ = optimizer.update(nothing, state, weights)
    for name in weights:
        np.testing.assert_allclose(update[name], -1e-4 * 0.045, rtol=1e-3)
