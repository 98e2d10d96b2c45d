"""What masked training hides: image tokens at a random rate, text for one sample in ten."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

RATIO_BINS = 5  # of mask ratios, of which the loss is reported each
TEXT_DROPOUT = 0.1  # share of samples trained without text (Muse, section 2.7)


def mask_ratios(key: Key[Array, ""], count: int) -> Float[Array, " count"]:
    """Draws mask ratios r with density 2/pi (1 - r^2)^(-1/2), whose mean is 2/pi = 0.637.

    Source: Muse, section 2.6: r = cos(pi u / 2) with u uniform has that density.
    """
    return jnp.cos(0.5 * jnp.pi * jax.random.uniform(key, (count,)))


def random_masks(key: Key[Array, ""], count: int, tokens: int) -> Bool[Array, "count tokens"]:
    """Marks the tokens each sample must predict: its ratio of them, at least one, at random.

    Args:
        key: Of the ratios and the places.
        count: Samples.
        tokens: Tokens of a sample.
    """
    ratio_key, place_key = jax.random.split(key)
    hidden = jnp.maximum(1, jnp.round(mask_ratios(ratio_key, count) * tokens)).astype(jnp.int32)
    order = jax.random.uniform(place_key, (count, tokens))
    ranks = jnp.argsort(jnp.argsort(order, axis=-1), axis=-1)
    return ranks < hidden[:, None]


def keep_text(key: Key[Array, ""], count: int) -> Bool[Array, " count"]:
    """Says which samples keep their text: nine in ten."""
    return jax.random.uniform(key, (count,)) >= TEXT_DROPOUT


def corrupted(
    key: Key[Array, ""], tokens: Int[Array, "B N"], share: float, vocabulary: int
) -> Int[Array, "B N"]:
    """Replaces a random share of tokens by random ids.

    Source: as the conditioning augmentation of Ho et al. 2021, "Cascaded Diffusion Models", section
    3, which blurs or noises what a super-resolution model is conditioned on; Muse has none.
    """
    chance_key, id_key = jax.random.split(key)
    replaced = jax.random.uniform(chance_key, tokens.shape) < share
    return jnp.where(replaced, jax.random.randint(id_key, tokens.shape, 0, vocabulary), tokens)


class Guesses(NamedTuple):
    """How well hidden tokens were guessed; numbers of the parts of a batch add up.

    Attributes:
        accuracy: Share of the batch's hidden tokens whose id is the likeliest.
        loss_by_ratio: Summed loss in nats of the samples whose mask ratio is in each bin.
        hidden_by_ratio: Their hidden tokens.
    """

    accuracy: Float[Array, ""]
    loss_by_ratio: Float[Array, " bins"]
    hidden_by_ratio: Float[Array, " bins"]


def masked_cross_entropy(
    logits: Float[Array, "B N V"],
    targets: Int[Array, "B N"],
    hidden: Bool[Array, "B N"],
    *,
    total: Int[Array, ""],
) -> tuple[Float[Array, ""], Guesses]:
    """Returns the mean loss in nats over the hidden tokens alone, and how they were guessed.

    Args:
        logits: Of every token.
        targets: Their ids.
        hidden: The tokens that count.
        total: Hidden tokens of the whole batch, of which these rows may be a part.
    """
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    chosen = jnp.take_along_axis(log_probabilities, targets[..., None], axis=-1)[..., 0]
    losses = -jnp.sum(chosen * hidden, axis=-1)
    right = (jnp.argmax(logits, axis=-1) == targets) & hidden
    counts = hidden.sum(axis=-1)
    bins = jnp.minimum(counts * RATIO_BINS // hidden.shape[1], RATIO_BINS - 1)
    zeros = jnp.zeros(RATIO_BINS)
    return losses.sum() / total, Guesses(
        accuracy=right.sum() / total,
        loss_by_ratio=zeros.at[bins].add(losses),
        hidden_by_ratio=zeros.at[bins].add(counts.astype(jnp.float32)),
    )
