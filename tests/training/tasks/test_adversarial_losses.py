"""The adversarial losses against direct computations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training.tasks.adversarial_losses import (
    LARGEST_RATIO,
    discriminator_loss,
    generator_loss,
    gradient_ratio,
    lecam_penalty,
    r1_penalty,
)

REAL, FAKE = np.array([[2.0, 0.5], [-1.0, 1.0]]), np.array([[-2.0, 0.0], [0.5, -1.0]])


def test_the_hinge_asks_for_scores_beyond_one_on_either_side() -> None:
    assert float(discriminator_loss(jnp.array([1.0, 3.0]), jnp.array([-1.0, -2.0]))) == 0.0
    expected = 0.5 * ((0.5 + 2.0) / 4 + (1.0 + 1.5) / 4)
    assert float(discriminator_loss(REAL, FAKE)) == pytest.approx(expected)
    assert float(generator_loss(FAKE)) == pytest.approx(2.5 / 4)


def test_the_ratio_is_that_of_the_norms_with_one_millionth_below() -> None:
    reconstruction, adversarial = np.full((3, 3, 2, 3), 2.0), np.full((3, 3, 2, 3), -0.5)
    assert float(gradient_ratio(reconstruction, adversarial)) == pytest.approx(4.0, rel=1e-5)
    tiny = jnp.array([3e-6])
    assert float(gradient_ratio(tiny, tiny)) == pytest.approx(0.75, rel=1e-4)


def test_the_ratio_stays_finite_without_an_adversarial_gradient() -> None:
    assert float(gradient_ratio(jnp.ones(4), jnp.zeros(4))) == LARGEST_RATIO
    assert float(gradient_ratio(jnp.zeros(4), jnp.ones(4))) == 0.0


def test_lecam_keeps_each_kind_near_the_other_kinds_mean() -> None:
    expected = np.mean((REAL - -0.3) ** 2) + np.mean((FAKE - 0.7) ** 2)
    penalty = lecam_penalty(REAL, FAKE, jnp.float32(0.7), jnp.float32(-0.3))
    assert float(penalty) == pytest.approx(expected)


def test_r1_is_half_the_squared_gradient_of_each_real_pictures_mean_score() -> None:
    images = jax.random.normal(jax.random.key(0), (3, 2, 2, 3))
    slope = jax.random.normal(jax.random.key(1), (2, 2, 3))

    def two_patches(images: jax.Array) -> jax.Array:
        linear = jnp.sum(slope * images, axis=(1, 2, 3))
        return jnp.stack([linear, 0.5 * jnp.sum(images**2, axis=(1, 2, 3))], axis=-1)

    gradients = (np.asarray(slope) + np.asarray(images)) / 2
    expected = 0.5 * np.mean(np.sum(gradients**2, axis=(1, 2, 3)))
    assert float(r1_penalty(two_patches, images)) == pytest.approx(expected, rel=1e-5)
