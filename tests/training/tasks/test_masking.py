"""Tests for what masked training hides: tokens at a random ratio, and the text of some samples."""

import jax
import jax.numpy as jnp
import numpy as np

from training.tasks.masking import (
    corrupted,
    keep_text,
    mask_ratios,
    masked_cross_entropy,
    random_masks,
)


def test_the_mean_mask_ratio_is_two_over_pi() -> None:
    ratios = mask_ratios(jax.random.key(0), 200_000)
    assert abs(float(ratios.mean()) - 2 / np.pi) < 0.003
    assert 0 <= float(ratios.min()) <= float(ratios.max()) <= 1


def test_mask_ratios_have_the_arccosine_density() -> None:
    ratios = np.sort(mask_ratios(jax.random.key(1), 200_000))
    # P(r <= x) = 2/pi arcsin(x)
    for x in (0.1, 0.3, 0.5, 0.7, 0.9):
        assert abs(np.mean(ratios <= x) - 2 / np.pi * np.arcsin(x)) < 0.005


def test_every_sample_hides_at_least_one_token() -> None:
    masks = random_masks(jax.random.key(2), 5000, 4)
    assert int(masks.sum(axis=1).min()) == 1
    assert int(masks.sum(axis=1).max()) == 4


def test_every_position_is_hidden_equally_often() -> None:
    shares = random_masks(jax.random.key(3), 20_000, 16).mean(axis=0)
    assert float(jnp.abs(shares - shares.mean()).max()) < 0.02


def test_text_is_dropped_for_one_sample_in_ten_not_kept_for_one() -> None:
    kept = float(keep_text(jax.random.key(4), 100_000).mean())
    assert abs(kept - 0.9) < 0.005


def test_the_loss_looks_at_hidden_tokens_alone() -> None:
    logits = jax.random.normal(jax.random.key(5), (2, 3, 4))
    targets = jnp.array([[0, 1, 2], [3, 0, 1]])
    hidden = jnp.array([[True, False, False], [False, True, True]])
    loss, _ = masked_cross_entropy(logits, targets, hidden, total=hidden.sum())
    elsewhere = jnp.where(hidden[..., None], logits, 100.0)
    assert float(masked_cross_entropy(elsewhere, targets, hidden, total=hidden.sum())[0]) == float(
        loss
    )
    log_probabilities = jax.nn.log_softmax(logits)
    by_hand = -(
        log_probabilities[0, 0, 0] + log_probabilities[1, 1, 0] + log_probabilities[1, 2, 1]
    )
    np.testing.assert_allclose(loss, by_hand / 3, rtol=1e-6)


def test_a_share_of_tokens_is_replaced_by_random_ids() -> None:
    tokens = jnp.full((64, 256), 7)
    changed = corrupted(jax.random.key(0), tokens, 0.2, 1000)
    assert abs(float((changed != tokens).mean()) - 0.2) < 0.01
    assert 0 <= int(changed.min()) < int(changed.max()) < 1000
    assert bool((corrupted(jax.random.key(0), tokens, 0.0, 1000) == tokens).all())
