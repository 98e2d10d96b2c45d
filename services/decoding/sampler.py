"""One decoding step over many rows, each at a step of its own.

Everything a row does is decided by its own numbers: its noise comes from its seed, its step and
the position, so a picture does not depend on the slot, the batch or the replica that makes it.

Source: Muse, section 2.8; Chang et al. 2022, "MaskGIT", section 3.2; DESIGN 4.2.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from services.decoding.guidance import guidance_at, guided
from services.decoding.state import DecodeState, Kind

# Masked tokens to conditional and unconditional (or negative) logits; at a scale of 0 the latter do
# not count and may be anything finite.
Predict = Callable[[Int[Array, "S N"]], tuple[Float[Array, "S N V"], Float[Array, "S N V"]]]


def decode_step(state: DecodeState, predict: Predict, *, mask_id: int) -> DecodeState:
    """Takes one step of every row that still has one to take.

    Args:
        state: The rows.
        predict: The network, for these rows.
        mask_id: What unknown tokens are shown as.
    """
    active = state.step < state.total
    id_keys, choice_keys = jax.vmap(_keys)(state.seed, state.step)
    choice_noise = jax.vmap(lambda key: jax.random.gumbel(key, state.tokens.shape[1:]))(choice_keys)
    resample = state.kind == Kind.RESAMPLE
    drawn = _first(jnp.where(state.known, -jnp.inf, choice_noise), state.unknown)
    hidden = jnp.where(resample[:, None], drawn & ~state.known, ~state.known)

    conditional, unconditional = predict(jnp.where(hidden, mask_id, state.tokens))
    scale = guidance_at(state.step, state.total, state.first_guidance, state.guidance)
    logits = guided(conditional.astype(jnp.float32), unconditional.astype(jnp.float32), scale)
    ids = sample_ids(id_keys, logits, state.temperature, state.top_k)

    log_probabilities = jax.nn.log_softmax(logits, axis=-1)
    chosen = jnp.take_along_axis(log_probabilities, ids[..., None], axis=-1)[..., 0]
    fade = 1.0 - (state.step + 1) / jnp.maximum(state.total, 1)
    noise = (state.confidence_noise * fade.astype(jnp.float32))[:, None] * choice_noise
    confidence = jnp.where(hidden, chosen + noise, -jnp.inf)
    still_masked = jnp.take_along_axis(
        state.schedule, jnp.minimum(state.step, state.schedule.shape[1] - 1)[:, None], axis=1
    )[:, 0]
    count = jnp.where(resample, state.unknown, hidden.sum(axis=-1) - still_masked)
    written = _first(confidence, count) & hidden & active[:, None]
    return state._replace(
        tokens=jnp.where(written, ids, state.tokens),
        known=state.known | (written & ~resample[:, None]),
        step=state.step + active,
    )


def sample_ids(
    keys: Key[Array, " S"],
    logits: Float[Array, "S N V"],
    temperature: Float[Array, " S"],
    top_k: Int[Array, " S"],
) -> Int[Array, "S N"]:
    """Draws an id at every position of every row.

    Args:
        keys: Each row's source of noise.
        logits: Guided logits, float32.
        temperature: Each row's; 0 takes the likeliest id, ties to the lower one.
        top_k: How many of the likeliest ids a row draws from, ties to the lower ids; 0 means all.
    """
    allowed = jax.lax.cond(
        jnp.any(top_k > 0),
        lambda: jnp.where(_among_top(logits, top_k), logits, -jnp.inf),
        lambda: logits,
    )
    noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(keys)
    noisy = allowed + temperature[:, None, None] * noise
    return jnp.argmax(noisy, axis=-1).astype(jnp.int32)


def _keys(seed: UInt32[Array, "2"], step: Int[Array, ""]) -> tuple[Key[Array, ""], Key[Array, ""]]:
    """Returns the step's sources of noise for ids and for confidences."""
    key = jax.random.fold_in(jax.random.wrap_key_data(seed, impl="threefry2x32"), step)
    return jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)


def _first(scores: Float[Array, "S N"], count: Int[Array, " S"]) -> Bool[Array, "S N"]:
    """Marks the `count` highest scores of each row, ties to the lower position."""
    order = jnp.argsort(-scores, axis=-1, stable=True)
    ranks = jnp.argsort(order, axis=-1)
    return ranks < count[:, None]


def _among_top(logits: Float[Array, "S N V"], top_k: Int[Array, " S"]) -> Bool[Array, "S N V"]:
    """Marks the ids a row may draw: exactly its top k, ties to the lower ids, or all for 0."""
    vocabulary = logits.shape[-1]
    kept = jnp.clip(top_k, 1, vocabulary)[:, None, None]
    descending = -jnp.sort(-logits, axis=-1)
    index = jnp.broadcast_to(kept - 1, (*logits.shape[:-1], 1))
    threshold = jnp.take_along_axis(descending, index, axis=-1)
    above, level = logits > threshold, logits == threshold
    room = kept - above.sum(axis=-1, keepdims=True)
    return above | (level & (jnp.cumsum(level, axis=-1) <= room)) | (top_k == 0)[:, None, None]
