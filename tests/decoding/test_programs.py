"""The programs of base and superres: slots, and export to every platform."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from services.decoding.advance import advance
from services.decoding.pool import DecodePool, DecodeRequest
from services.decoding.slots import Slots, empty_slots
from services.decoding.state import Kind, Row, Sampling, fresh_row, idle_state, state_of
from services.nn.attention import Context
from services.presets import preset
from services.superres.model import SuperresTransformer

TINY = preset("tiny")
TOKENS = TINY.base.tokens


def superres_pool() -> DecodePool:
    """A pool of an untrained super-resolution transformer."""
    config = TINY.superres
    return DecodePool(
        SuperresTransformer(config, rngs=nnx.Rngs(0)),
        inputs=(
            jax.ShapeDtypeStruct((1, config.low_tokens), np.int32),
            jax.ShapeDtypeStruct((1, config.text_length, config.text_hidden), np.float32),
            jax.ShapeDtypeStruct((1, config.text_length), np.bool_),
        ),
        tokens=config.tokens,
        mask_id=config.vocabulary,
        slots=2,
    )


@pytest.mark.parametrize("stage", ["base", "base in int8", "base in bfloat16", "superres"])
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_every_program_exports_for_every_platform(
    build_base_pool: Callable[..., DecodePool], stage: str, platform: str
) -> None:
    if stage == "superres":
        built = superres_pool()
    else:
        built = build_base_pool(
            weights="int8" if stage == "base in int8" else "full",
            dtype=jnp.bfloat16 if stage == "base in bfloat16" else jnp.float32,
        )
    for program in built.programs:
        exported = jax.export.export(program.jit(), platforms=[platform])(*program.shapes)
        assert exported.platforms == (platform,)


def test_a_slot_that_is_not_there_is_refused(
    pool: DecodePool, make_request: Callable[..., DecodeRequest]
) -> None:
    with pytest.raises(ValueError, match="expected 0 to 3, got 4"):
        pool.admit(4, make_request(fresh_row(TOKENS, Sampling(steps=2, guidance_scale=0.0))))


def test_a_row_of_another_size_is_refused_and_the_slots_stay_as_they_are(
    pool: DecodePool, make_request: Callable[..., DecodeRequest], alone: Callable[..., list[Any]]
) -> None:
    request = make_request(fresh_row(TOKENS, Sampling(steps=6, guidance_scale=2.0, seed=9)))
    expected = alone(pool, request)[-1].tokens

    pool.admit(1, request)
    with pytest.raises(ValueError, match="expected 16 tokens, got 5"):
        pool.admit(2, make_request(fresh_row(5, Sampling(steps=2, guidance_scale=0.0))))

    assert np.array_equal(pool.advance(6, [1])[1].tokens, expected)


def test_a_pool_whose_step_failed_works_as_ever_after_a_reset(
    build_base_pool: Callable[..., DecodePool],
    make_request: Callable[..., DecodeRequest],
    alone: Callable[..., list[Any]],
) -> None:
    pool = build_base_pool(slots=2)
    pool.warm_up()
    request = make_request(fresh_row(TOKENS, Sampling(steps=6, guidance_scale=2.0, seed=9)))
    before = alone(pool, request)[-1].tokens
    assert pool.compiled is not None
    working = pool.compiled

    def fail(parameters: object, slots: Slots, limit: object, resting: object) -> Slots:
        jax.tree.map(lambda array: array.delete(), slots)  # as a donated buffer is
        raise OSError("the device has gone")

    pool.admit(0, request)
    pool.compiled = replace(working, advance=fail)
    with pytest.raises(OSError, match="device has gone"):
        pool.advance(1, [0])
    pool.compiled = working
    with pytest.raises(RuntimeError, match=r"reset\(\) after a failure"):
        pool.advance(1, [0])
    pool.reset()

    assert np.array_equal(alone(pool, request)[-1].tokens, before)


def test_a_released_row_takes_no_further_step_and_its_slot_serves_the_next(
    pool: DecodePool, make_request: Callable[..., DecodeRequest], alone: Callable[..., list[Any]]
) -> None:
    first, second = (
        make_request(fresh_row(TOKENS, Sampling(steps=8, guidance_scale=2.0, seed=seed)))
        for seed in (1, 2)
    )
    expected = alone(pool, second)[-1].tokens

    pool.admit(2, first)
    halfway = pool.advance(3, [2])[2]
    pool.release(2)
    later = pool.advance(5, [2])[2]

    assert (halfway.step, later.step) == (3, 3)
    assert np.array_equal(halfway.tokens, later.tokens)
    pool.admit(2, second)
    assert np.array_equal(pool.advance(8, [2])[2].tokens, expected)


def test_a_row_that_rests_takes_no_step_and_goes_on_afterwards(
    pool: DecodePool, make_request: Callable[..., DecodeRequest], alone: Callable[..., list[Any]]
) -> None:
    first, second = (
        make_request(fresh_row(TOKENS, Sampling(steps=8, guidance_scale=2.0, seed=seed)))
        for seed in (1, 2)
    )
    expected = [alone(pool, request) for request in (first, second)]

    pool.admit(1, first)
    pool.admit(2, second)
    part = pool.advance(3, [1, 2], [1])
    assert (part[1].step, part[2].step) == (0, 3)
    assert np.array_equal(part[2].tokens, expected[1][3].tokens)
    assert pool.advance(4, [1], [2])[1].step == 4
    ended = pool.advance(8, [1, 2])
    for slot, states in zip((1, 2), expected, strict=True):
        assert np.array_equal(ended[slot].tokens, states[-1].tokens)


def test_a_mask_free_edit_draws_its_share_of_the_open_tokens_at_every_step(
    pool: DecodePool, make_request: Callable[..., DecodeRequest], alone: Callable[..., list[Any]]
) -> None:
    start = np.arange(TOKENS) % TINY.base.vocabulary
    row = Row(
        tokens=start,
        known=np.arange(TOKENS) < 6,
        sampling=Sampling(steps=40, guidance_scale=4.0, top_k=3),
        unknown=2,
        kind=Kind.MASK_FREE_EDIT,
    )

    states = [state.tokens for state in alone(pool, make_request(row))]

    assert len(states) == 41
    for before, after in pairwise(states):
        assert np.sum(before != after) <= 2
    assert np.array_equal(states[-1][:6], start[:6])
    assert np.any(states[-1] != start)
    assert states[-1].max() < TINY.base.vocabulary


def test_an_image_of_which_everything_is_known_comes_back_unchanged(
    pool: DecodePool, make_request: Callable[..., DecodeRequest]
) -> None:
    tokens = np.full(TOKENS, 3)
    row = Row(
        tokens=tokens,
        known=np.ones(TOKENS, bool),
        sampling=Sampling(steps=4, guidance_scale=1.0),
        unknown=0,
    )
    request = make_request(row)
    assert request.steps_left == 0

    pool.admit(0, request)

    assert np.array_equal(pool.advance(0, [0])[0].tokens, tokens)


def test_a_state_that_contradicts_its_steps_is_refused() -> None:
    row = Row(
        tokens=np.zeros(16, np.int32),
        known=np.zeros(16, bool),
        sampling=Sampling(steps=4, guidance_scale=0.0),
        unknown=16,
        step=2,
    )

    with pytest.raises(ValueError, match="resume with the tokens and steps"):
        state_of([row], mask_id=32)


class CountedNetwork:
    """Computes features of zero and counts the rows of each call while it runs."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()

    def _counted(self, branch: str, tokens: jax.Array) -> jax.Array:
        def count(rows: np.ndarray) -> np.ndarray:
            self.rows[branch] += len(rows)
            return np.zeros((*rows.shape, 5), np.float32)

        shape = jax.ShapeDtypeStruct((*tokens.shape, 5), jnp.float32)
        return jax.experimental.io_callback(count, shape, tokens)

    def context(self, *inputs: jax.Array) -> Context:
        raise NotImplementedError("the slots hold it already")

    def features(self, tokens: jax.Array, context: Context, conditional: jax.Array) -> jax.Array:
        return self._counted("with text", tokens)

    def cfg_batch_features(self, tokens: jax.Array, context: Context) -> jax.Array:
        return self._counted("with text and without", jnp.concatenate([tokens, tokens]))

    def last_layer(self, features: jax.Array) -> jax.Array:
        return features + self._counted("last layer", features[..., 0])


UNGUIDED = Sampling(steps=4, guidance_scale=0.0)
GUIDED = Sampling(steps=4, guidance_scale=3.0)  # the first step's scale is 0
GUIDED_THROUGHOUT = Sampling(steps=4, guidance_scale=3.0, guidance_scale_start=3.0)


@pytest.mark.parametrize(
    ("sampling", "negative", "expected"),
    [
        (UNGUIDED, False, {"with text": 4, "last layer": 4}),
        (UNGUIDED, True, {"with text": 4, "last layer": 4}),
        (GUIDED, False, {"with text": 1, "with text and without": 6, "last layer": 4}),
        (GUIDED_THROUGHOUT, False, {"with text and without": 8, "last layer": 4}),
        (GUIDED_THROUGHOUT, True, {"with text": 8, "last layer": 4}),
    ],
)
def test_a_step_computes_the_branches_it_needs_and_the_last_layer_once(
    sampling: Sampling, negative: bool, expected: dict[str, int]
) -> None:
    network = CountedNetwork()
    blank = jnp.zeros((1, 1, 1, 1, 1))
    context = Context(blank, blank, jnp.ones(1, jnp.int32))
    slots: Slots = empty_slots(idle_state(3, 4, mask_id=5), context)
    row = state_of([fresh_row(4, sampling)], mask_id=5)
    state = jax.tree.map(lambda rows, one: rows.at[1].set(one[0]), slots.state, row)
    filled = slots._replace(state=state, has_negative=slots.has_negative.at[1].set(negative))

    none = jnp.zeros(3, bool)
    ended = advance(filled, jnp.int32(99), none, lambda scale: network, mask_id=5)
    jax.block_until_ready(ended)
    jax.effects_barrier()

    assert ended.state.step[1] == 4
    assert network.rows == expected
