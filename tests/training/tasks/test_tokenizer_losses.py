"""The losses of a tokenizer against direct computations, and their numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training.tasks.tokenizer_losses import (
    FAINT_EDGES,
    TokenizerLosses,
    edge_error,
    entropy_penalty,
    quantization_loss,
    reconstruction_loss,
)

FEATURES = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
CODEBOOK = jax.random.normal(jax.random.key(1), (7, 5))


def test_entropy_is_that_of_a_position_less_that_of_the_mean() -> None:
    vectors, codes, temperature = np.asarray(FEATURES).reshape(-1, 5), np.asarray(CODEBOOK), 0.7
    squared = np.sum((vectors[:, None] - codes[None]) ** 2, axis=-1)
    weights = np.exp(-squared / temperature)
    shares = weights / weights.sum(axis=-1, keepdims=True)
    mean = shares.mean(axis=0)
    of_position = -np.sum(shares * np.log(shares), axis=-1).mean()
    expected = of_position + np.sum(mean * np.log(mean))
    assert float(entropy_penalty(FEATURES, CODEBOOK, temperature)) == pytest.approx(
        expected, rel=1e-4
    )


def test_entropy_is_least_if_each_position_is_sure_and_all_codes_are_used_equally() -> None:
    codes = 8 * jnp.eye(4)
    sure, alike = codes.reshape(1, 2, 2, 4), jnp.tile(codes[0], (1, 2, 2, 1))
    assert float(entropy_penalty(sure, codes, 0.01)) == pytest.approx(-np.log(4), rel=1e-4)
    assert float(entropy_penalty(alike, codes, 0.01)) == pytest.approx(0.0, abs=1e-4)


def test_the_entropy_moves_encoder_and_codebook() -> None:
    of_features, of_codes = jax.grad(entropy_penalty, argnums=(0, 1))(FEATURES, CODEBOOK, 1.0)
    assert float(jnp.abs(of_features).max()) > 0
    assert float(jnp.abs(of_codes).max()) > 0


def test_the_error_of_edges_is_relative_to_those_of_each_image() -> None:
    drawn = np.array([[0.0, 1.0], [0.0, 3.0]]).reshape(1, 2, 2, 1)
    own = (1 + 9) / 2 + (0 + 4) / 2  # squared differences along rows, and along columns
    empty = np.zeros_like(drawn)

    def error(fake: np.ndarray, images: np.ndarray) -> float:
        return float(edge_error(jnp.asarray(fake), jnp.asarray(images)))

    assert error(drawn + 5.0, drawn) == 0.0
    assert error(empty, drawn) == pytest.approx(own / (own + FAINT_EDGES), rel=1e-5)
    assert error(empty, 0.5 * drawn) == pytest.approx(error(empty, drawn), rel=1e-2)
    assert error(drawn, empty) == pytest.approx(own / FAINT_EDGES, rel=1e-5)
    both = error(np.concatenate([drawn, drawn]), np.concatenate([drawn, empty]))
    assert both == pytest.approx(own / FAINT_EDGES / 2, rel=1e-5)


def test_the_reconstruction_loss_adds_what_has_a_weight() -> None:
    images = jax.random.uniform(jax.random.key(2), (2, 4, 4, 3), minval=-1.0)
    fake = images + 0.1
    plain, metrics = reconstruction_loss(fake, images, TokenizerLosses(), None)
    assert float(plain) == pytest.approx(0.1 + 0.01, rel=1e-4)
    assert float(metrics["psnr_db"]) == pytest.approx(10 * np.log10(4 / 0.01), rel=1e-4)
    assert "perceptual" not in metrics

    class Distance:
        fingerprint = "mean"

        def __call__(self, images: jax.Array, references: jax.Array) -> jax.Array:
            return jnp.mean(images - references, axis=(1, 2, 3))

    losses = TokenizerLosses(perceptual=0.5, edges=2.0)
    both, metrics = reconstruction_loss(fake, images, losses, Distance())
    assert float(metrics["perceptual"]) == pytest.approx(0.1, rel=1e-4)
    assert float(both - plain) == pytest.approx(0.5 * 0.1, rel=1e-4)  # the edges are the same


def test_commitment_moves_the_encoder_alone_and_the_codebook_loss_the_codes_alone() -> None:
    codes = FEATURES + 2.0
    losses = TokenizerLosses(commitment=0.25)
    of_features, of_codes = jax.grad(
        lambda features, codes: quantization_loss(features, codes, CODEBOOK, losses)[0],
        argnums=(0, 1),
    )(FEATURES, codes)
    np.testing.assert_allclose(of_features, np.full_like(FEATURES, -1 / FEATURES.size), rtol=1e-5)
    np.testing.assert_allclose(of_codes, np.full_like(FEATURES, 4 / FEATURES.size), rtol=1e-5)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"adversarial": -0.1}, r"losses\.adversarial must be at least 0 and finite, got -0\.1"),
        (
            {"perceptual": float("nan")},
            r"losses\.perceptual must be at least 0 and finite, got nan",
        ),
        ({"lecam": float("inf")}, r"losses\.lecam must be at least 0 and finite, got inf"),
        ({"adversarial_start_step": -1}, "adversarial_start_step must be at least 0"),
        ({"entropy_temperature": 0.0}, "entropy_temperature must be more than 0 and finite"),
        ({"discriminator_width": 6}, "discriminator_width must be a multiple of 4, got 6"),
        ({"usage_decay": 1.0}, r"usage_decay must be in \[0, 1\), got 1\.0"),
        ({"revive_below": 1.0}, r"revive_below must be in \[0, 1\), got 1\.0"),
    ],
)
def test_a_number_out_of_its_range_is_refused_by_name(numbers: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TokenizerLosses(**numbers)
