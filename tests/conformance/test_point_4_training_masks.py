"""Point 4 of the method: masks of training."""

import jax
import jax.numpy as jnp
import numpy as np

from training.tasks.masking import keep_text, mask_ratios, masked_cross_entropy, random_masks


def test_mask_ratios_have_the_arccosine_density_with_mean_0_637() -> None:
    ratios = np.asarray(mask_ratios(jax.random.key(0), 100_000))

    assert abs(ratios.mean() - 2 / np.pi) < 0.003
    # Its distribution function is 2/pi arcsin(r).
    for quantile in (0.1, 0.5, 0.9):
        assert abs(np.mean(ratios < quantile) - 2 / np.pi * np.arcsin(quantile)) < 0.005


def test_at_least_one_token_is_hidden_and_every_place_as_often() -> None:
    masks = np.asarray(random_masks(jax.random.key(1), 20_000, 9))

    assert masks.sum(axis=1).min() == 1
    assert np.ptp(masks.mean(axis=0)) < 0.02


def test_text_is_dropped_for_one_sample_in_ten_and_not_kept_for_one() -> None:
    kept = np.asarray(keep_text(jax.random.key(2), 100_000))

    assert abs(kept.mean() - 0.9) < 0.005


def test_only_hidden_tokens_count_in_the_loss() -> None:
    logits = jax.random.normal(jax.random.key(3), (2, 6, 5))
    targets = jnp.zeros((2, 6), jnp.int32)
    hidden = jnp.zeros((2, 6), bool).at[:, :3].set(True)

    loss = masked_cross_entropy(logits, targets, hidden, total=hidden.sum())[0]
    changed = logits.at[:, 3:].add(9.0), targets.at[:, 3:].set(4)
    elsewhere = masked_cross_entropy(*changed, hidden, total=hidden.sum())[0]

    assert loss == elsewhere
    np.testing.assert_allclose(loss, -jax.nn.log_softmax(logits)[:, :3, 0].mean(), rtol=1e-5)
