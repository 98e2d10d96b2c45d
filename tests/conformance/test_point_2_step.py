"""Point 2 of the method: one decoding step, and logits in float32."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from services.base.model import BaseTransformer
from services.decoding.sampler import decode_step, sample_ids
from services.decoding.state import DecodeState, Row, Sampling, fresh_row, state_of
from services.presets import preset
from services.superres.model import SuperresTransformer

TINY = preset("tiny")

VOCABULARY, TOKENS, MASK = 12, 16, 12
LOGITS = jax.random.normal(jax.random.key(0), (TOKENS, VOCABULARY)) * 2


def predict(tokens: jax.Array) -> jax.Array:
    """Prefers the same ids whatever it is shown."""
    return jnp.broadcast_to(LOGITS, (*tokens.shape, VOCABULARY))


def state(*rows: Row) -> DecodeState:
    """Lays rows out on the device."""
    return jax.tree.map(jnp.asarray, state_of(list(rows), mask_id=MASK))


@jax.jit
def one_step(decodes: DecodeState) -> DecodeState:
    """Takes a step of every row."""
    return decode_step(decodes, predict, mask_id=MASK)


def take_all(decodes: DecodeState) -> list[DecodeState]:
    """Takes steps until every row rests."""
    states = [decodes]
    while np.any(states[-1].step < states[-1].total):
        states.append(one_step(states[-1]))
    return states


def test_a_known_token_is_never_masked_or_changed_again() -> None:
    given = np.array([3, 7] + [0] * (TOKENS - 2))
    known = np.arange(TOKENS) < 2
    row = Row(
        tokens=given,
        known=known,
        sampling=Sampling(steps=5, guidance_scale=3.0, seed=1),
        unknown=TOKENS - 2,
    )

    states = take_all(state(row))

    assert states[-1].tokens[0, :2].tolist() == [3, 7]
    for before, after in pairwise(states):
        kept = np.asarray(before.known[0])
        assert np.all(np.asarray(after.known[0])[kept])
        assert np.array_equal(np.asarray(before.tokens[0])[kept], np.asarray(after.tokens[0])[kept])


def test_rows_at_different_steps_reveal_exactly_their_own_scheduled_number() -> None:
    slow, fast = (
        fresh_row(TOKENS, Sampling(steps=steps, guidance_scale=2.0, seed=steps)) for steps in (8, 3)
    )

    states = take_all(state(slow, fast))

    counts = [np.asarray(one.known).sum(axis=1).tolist() for one in states]
    assert [row[0] for row in counts] == [0, 1, 2, 3, 5, 8, 10, 13, 16]
    assert [row[1] for row in counts] == [0, 3, 8, 16, 16, 16, 16, 16, 16]


def test_without_noise_the_most_confident_tokens_come_first_and_ties_go_to_the_lower_position() -> (
    None
):
    sampling = Sampling(steps=4, guidance_scale=0.0, temperature=0.0, choice_temperature=0.0)
    tied = jnp.zeros((1, TOKENS, VOCABULARY)).at[:, (9, 4), 5].set(3.0)

    after = decode_step(state(fresh_row(TOKENS, sampling)), lambda tokens: tied, mask_id=MASK)
    last = decode_step(after, lambda tokens: tied, mask_id=MASK)

    assert np.flatnonzero(after.known[0]).tolist() == [4, 9]
    assert after.tokens[0, 4] == after.tokens[0, 9] == 5
    assert np.flatnonzero(last.known[0]).tolist() == [0, 1, 2, 4, 9]


def test_top_k_draws_from_exactly_the_k_likeliest_ids_with_ties_to_the_lower() -> None:
    logits = jnp.zeros((400, 1, VOCABULARY)).at[:, :, 8].set(1.0)
    keys = jax.random.split(jax.random.key(0), 400)
    drawn = sample_ids(keys, logits, jnp.full(400, 5.0), jnp.full(400, 3))

    assert set(np.unique(drawn).tolist()) == {0, 1, 8}


@pytest.mark.parametrize("vocabulary", [5, VOCABULARY, 300])
def test_sampled_ids_have_the_frequencies_of_the_tempered_logits(vocabulary: int) -> None:
    count = 20_000
    preferences = jax.random.normal(jax.random.key(1), (vocabulary,)) * 2
    logits = jnp.broadcast_to(preferences, (count, 1, vocabulary))
    keys = jax.random.split(jax.random.key(3), count)

    drawn = sample_ids(keys, logits, jnp.full(count, 2.0), jnp.zeros(count, jnp.int32))

    frequencies = np.bincount(np.asarray(drawn).ravel(), minlength=vocabulary) / count
    assert np.max(np.abs(frequencies - jax.nn.softmax(preferences / 2))) < 0.01


@pytest.mark.parametrize("top_k", [1, 2, 130])
def test_an_id_that_is_left_out_is_never_drawn_however_many_are(top_k: int) -> None:
    count, vocabulary = 20_000, 257
    logits = jnp.broadcast_to(jnp.arange(vocabulary) * 1e-3, (count, 1, vocabulary))[..., ::-1]
    keys = jax.random.split(jax.random.key(5), count)

    drawn = sample_ids(keys, logits, jnp.full(count, 1.0), jnp.full(count, top_k))

    assert set(np.unique(drawn).tolist()) == set(range(top_k))


def test_a_cold_row_takes_the_likeliest_id_beside_a_warm_one() -> None:
    keys = jax.random.split(jax.random.key(0), 2)
    logits = jnp.stack([LOGITS, LOGITS])

    cold, warm = sample_ids(keys, logits, jnp.array([0.0, 9.0]), jnp.zeros(2, jnp.int32))

    assert np.array_equal(cold, jnp.argmax(LOGITS, axis=-1))
    assert not np.array_equal(warm, cold)


def test_a_decode_depends_on_its_seed_and_on_nothing_beside_it() -> None:
    rows = [
        fresh_row(TOKENS, Sampling(steps=6, guidance_scale=3.0, seed=seed))
        for seed in (5, 2**63 + 5, 5 + 2**32)
    ]

    together = take_all(state(*rows))[-1].tokens
    alone = [take_all(state(row))[-1].tokens[0] for row in rows]

    assert np.array_equal(together, alone)
    assert len({tuple(np.asarray(tokens).tolist()) for tokens in alone}) == 3


def test_a_decode_handed_out_after_any_step_ends_as_if_it_had_stayed() -> None:
    sampling = Sampling(steps=6, guidance_scale=3.0, seed=11)
    states = take_all(state(fresh_row(TOKENS, sampling)))

    for taken, halfway in enumerate(states):
        resumed = Row(
            tokens=np.asarray(halfway.tokens[0]),
            known=np.asarray(halfway.known[0]),
            sampling=sampling,
            unknown=TOKENS,
            step=taken,
        )
        assert np.array_equal(take_all(state(resumed))[-1].tokens, states[-1].tokens)


@pytest.mark.parametrize("stage", ["base", "superres"])
def test_the_last_layer_of_a_bfloat16_model_returns_logits_that_were_never_rounded_to_bfloat16(
    stage: str,
) -> None:
    model: BaseTransformer | SuperresTransformer = (
        BaseTransformer(TINY.base, rngs=nnx.Rngs(0), dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
        if stage == "base"
        else SuperresTransformer(
            TINY.superres, rngs=nnx.Rngs(0), dtype=jnp.bfloat16, param_dtype=jnp.bfloat16
        )
    )
    hidden = model.config.hidden
    features = jax.random.normal(jax.random.key(0), (2, 64, hidden), jnp.bfloat16)

    logits = jax.jit(model.last_layer)(features)

    assert (features.dtype, model.head.output.kernel[...].dtype) == (jnp.bfloat16, jnp.bfloat16)
    assert logits.dtype == jnp.float32
    kernel, bias = (
        np.asarray(parameter[...], np.float64)
        for parameter in (model.head.output.kernel, model.head.output.bias)
    )
    np.testing.assert_allclose(
        logits, np.asarray(features, np.float64) @ kernel + bias, rtol=1e-5, atol=1e-7
    )
    rounded = logits.astype(jnp.bfloat16).astype(jnp.float32)
    assert np.mean(np.asarray(rounded != logits)) > 0.95
