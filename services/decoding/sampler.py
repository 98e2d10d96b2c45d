"""One decoding step over many rows, each row at its own step.

The noise of a row depends only on its seed, its step and the position, so an image does not depend
on the slot, the batch or the replica that makes it.

Source: Muse, section 2.8; Chang et al. 2022, "MaskGIT", section 3.2; docs/method.md.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from services.decoding.state import DecodeState, Kind

# Masked tokens of every row to guided float32 logits.
Predict = Callable[[Int[Array, "S N"]], Float[Array, "S N V"]]
BLOCK = 128  # ids per block of the two-level running sum in `_drawn`


def decode_step(state: DecodeState, predict: Predict, *, mask_id: int) -> DecodeState:
    """Takes one step of every active row; `mask_id` replaces unknown tokens."""
    active = state.step < state.total
    id_keys, choice_keys = jax.vmap(step_keys)(state.seed, state.step)
    choice_noise = jax.vmap(lambda key: jax.random.gumbel(key, state.tokens.shape[1:]))(choice_keys)
    mask_free_edit = state.kind == Kind.MASK_FREE_EDIT
    resampled = _first(jnp.where(state.known, -jnp.inf, choice_noise), state.unknown)
    hidden = jnp.where(mask_free_edit[:, None], resampled & ~state.known, ~state.known)

    logits = predict(jnp.where(hidden, mask_id, state.tokens))
    ids = sample_ids(id_keys, logits, state.temperature, state.top_k)

    sampled_logit = jnp.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]
    log_probability = sampled_logit - jax.nn.logsumexp(logits, axis=-1)
    fade = 1.0 - (state.step + 1) / jnp.maximum(state.total, 1)
    noise = (state.choice_temperature * fade.astype(jnp.float32))[:, None] * choice_noise
    confidence = jnp.where(hidden, log_probability + noise, -jnp.inf)
    still_masked = jnp.take_along_axis(
        state.schedule, jnp.minimum(state.step, state.schedule.shape[1] - 1)[:, None], axis=1
    )[:, 0]
    count = jnp.where(mask_free_edit, state.unknown, hidden.sum(axis=-1) - still_masked)
    written = _first(confidence, count) & hidden & active[:, None]
    return state._replace(
        tokens=jnp.where(written, ids, state.tokens),
        known=state.known | (written & ~mask_free_edit[:, None]),
        step=state.step + active,
    )


def sample_ids(
    keys: Key[Array, " S"],
    logits: Float[Array, "S N V"],
    temperature: Float[Array, " S"],
    top_k: Int[Array, " S"],
) -> Int[Array, "S N"]:
    """Samples an id at every position of every row, with one random number per position.

    The sampled id is the first at which the running sum of the probabilities passes the random
    number. (Gumbel noise on every logit samples from the same distribution, but draws a random
    number per logit: at 8192 codes that took longer than the network's last layer.)

    Args:
        keys: Random key of each row.
        logits: Guided logits, float32.
        temperature: Temperature of each row; 0 takes the likeliest id, ties to the lower id.
        top_k: Number of likeliest ids that a row samples from, ties to the lower ids; 0 means all.
    """
    allowed = jax.lax.cond(
        jnp.any(top_k > 0),
        lambda: jnp.where(_among_top(logits, top_k), logits, -jnp.inf),
        lambda: logits,
    )
    likeliest = jnp.argmax(allowed, axis=-1)
    highest = jnp.max(allowed, axis=-1, keepdims=True)
    warm = jnp.where(temperature > 0, temperature, 1.0)[:, None, None]
    shares = jnp.exp((allowed - highest) / warm)
    uniform = jax.vmap(lambda key: jax.random.uniform(key, logits.shape[1:-1]))(keys)
    drawn = _drawn(shares, uniform)
    return jnp.where(temperature[:, None] > 0, drawn, likeliest).astype(jnp.int32)


def _drawn(shares: Float[Array, "S N V"], uniform: Float[Array, "S N"]) -> Int[Array, "S N"]:
    """Returns the first id whose running sum of shares passes the fraction `uniform` of their sum.

    The running sum goes over the sums of blocks first and then over the ids of one block, which
    takes far fewer additions than one running sum over all ids. An id whose share is 0 is never
    returned, however the sums are rounded. At least one share is 1 or more, and `uniform` is less
    than 1.
    """
    missing = -shares.shape[-1] % BLOCK
    padded = jnp.pad(shares, ((0, 0), (0, 0), (0, missing)))
    blocks = padded.reshape(*shares.shape[:2], -1, BLOCK)
    block, left = _passed(blocks.sum(axis=-1), uniform * blocks.sum(axis=(-2, -1)))
    members = jnp.take_along_axis(blocks, block[..., None, None], axis=2)[:, :, 0]
    return block * BLOCK + _passed(members, left)[0]


def _passed(
    shares: Float[Array, "S N M"], target: Float[Array, "S N"]
) -> tuple[Int[Array, "S N"], Float[Array, "S N"]]:
    """Returns the index at which the running sum passes a target, and the target's rest in it."""
    sums = jnp.cumsum(shares, axis=-1)
    passed = (sums > target[..., None]) & (shares > 0)
    # Rounding may put the target at the total sum: then the last share above 0 is taken.
    last = shares.shape[-1] - 1 - jnp.argmax(shares[..., ::-1] > 0, axis=-1)
    index = jnp.where(passed.any(axis=-1), jnp.argmax(passed, axis=-1), last)
    before = jnp.take_along_axis(sums - shares, index[..., None], axis=-1)[..., 0]
    return index, target - before


def step_keys(
    seed: UInt32[Array, "2"], step: Int[Array, ""]
) -> tuple[Key[Array, ""], Key[Array, ""]]:
    """Returns the random keys of a step, for ids and for confidences."""
    key = jax.random.fold_in(jax.random.wrap_key_data(seed, impl="threefry2x32"), step)
    return jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)


def _first(scores: Float[Array, "S N"], count: Int[Array, " S"]) -> Bool[Array, "S N"]:
    """Marks the `count` highest scores of each row, ties to the lower position."""
    order = jnp.argsort(-scores, axis=-1, stable=True)
    ranks = jnp.argsort(order, axis=-1)
    return ranks < count[:, None]


def _among_top(logits: Float[Array, "S N V"], top_k: Int[Array, " S"]) -> Bool[Array, "S N V"]:
    """Marks the ids that a row may sample: exactly its top k, ties to the lower ids; all for 0."""
    vocabulary = logits.shape[-1]
    kept = jnp.clip(top_k, 1, vocabulary)[:, None, None]
    # Equal logits are alike. For a stable order of them a TPU would sort indices as well.
    descending = -jnp.sort(-logits, axis=-1, stable=False)
    index = jnp.broadcast_to(kept - 1, (*logits.shape[:-1], 1))
    threshold = jnp.take_along_axis(descending, index, axis=-1)
    above, level = logits > threshold, logits == threshold
    room = kept - above.sum(axis=-1, keepdims=True)
    return above | (level & (jnp.cumsum(level, axis=-1) <= room)) | (top_k == 0)[:, None, None]
