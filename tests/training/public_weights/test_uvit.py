"""aMUSEd's transformer: the logits of diffusers' module, and the tokens of its scheduler."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from services.base.spec import BASE
from services.base.uvit import UVit
from services.decoding.pool import DecodePool, DecodeRequest
from services.decoding.state import Sampling, fresh_row
from tests.training.public_weights.amused import drawn_texts, drawn_uvit, golden

SHAPES = ("uvit_256", "uvit_512")


@pytest.fixture(scope="module", params=SHAPES)
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module")
def answers(name: str) -> dict[str, Any]:
    return golden(name)


@pytest.fixture(scope="module")
def model(name: str) -> UVit:
    return drawn_uvit(name)


def test_logits_are_those_of_diffusers(model: UVit, answers: dict[str, Any]) -> None:
    tokens, expected = answers["tokens"], answers["logits"]
    ids = np.where(tokens == answers["fields"]["vocab_size"] - 1, model.config.vocabulary, tokens)
    texts = drawn_texts(model.config)

    @jax.jit
    def logits(text: jax.Array, mask: jax.Array, conditional: jax.Array) -> jax.Array:
        return model.logits(ids, model.context(text, mask), conditional)

    given = jnp.ones(texts.shape[:2], bool)
    both = logits(texts, given, jnp.ones(2, bool))
    assert both.dtype == jnp.float32
    np.testing.assert_allclose(both, expected, atol=1e-4)
    # A row without a text, and one that is not conditional, has the empty text.
    absent = logits(np.stack([texts[0], 0 * texts[0]]), given.at[1].set(False), jnp.ones(2, bool))
    np.testing.assert_allclose(absent, expected, atol=1e-4)
    closed = logits(texts[[0, 0]], given, jnp.array([True, False]))
    np.testing.assert_allclose(closed, expected, atol=1e-4)


def test_a_guided_batch_has_the_features_of_both_branches(
    model: UVit, answers: dict[str, Any]
) -> None:
    texts, tokens = drawn_texts(model.config)[:1], answers["tokens"][:1] % model.config.vocabulary
    context = jax.jit(model.context)(texts, jnp.ones(texts.shape[:2], bool))

    cond, uncond = jnp.split(jax.jit(model.cfg_batch_features)(tokens, context), 2)

    features = jax.jit(model.features)
    for found, conditional in ((cond, True), (uncond, False)):
        alone = features(tokens, context, jnp.array([conditional]))
        np.testing.assert_allclose(found, alone, atol=1e-5)


@pytest.fixture(scope="module", params=[1, 2])
def pool(request: pytest.FixtureRequest, model: UVit) -> DecodePool:
    """A pool that computes one decode in a call of the network, or two."""
    rows_at_once: int = request.param
    config = model.config
    pool = DecodePool(
        model,
        inputs=BASE.input_shapes(config),
        tokens=config.tokens,
        mask_id=config.vocabulary,
        slots=2,
        rows_at_once=rows_at_once,
    )
    pool.warm_up()
    return pool


@pytest.mark.parametrize(("steps", "seed"), [(16, 7), (12, 2**40 + 3)])
def test_a_decode_has_the_tokens_of_diffusers_scheduler_for_the_same_noise(
    steps: int, seed: int, pool: DecodePool, model: UVit, answers: dict[str, Any]
) -> None:
    config = model.config
    sampling = Sampling(
        steps=steps,
        guidance_scale=9.0,
        guidance_scale_start=9.0,
        temperature=1.0,
        choice_temperature=2 * steps / (steps - 1),
        seed=seed,
    )
    inputs = drawn_texts(config)[0], np.ones(config.text_length, bool)
    row = fresh_row(config.tokens, sampling)
    pool.admit(1, DecodeRequest(inputs=inputs, negative_inputs=None, row=row))

    after = [pool.advance(1, [1])[1].tokens for _ in range(steps)]

    expected = answers[f"decode.{steps}"].astype(np.int32)
    mask_id = answers["fields"]["vocab_size"] - 1
    np.testing.assert_array_equal(
        np.stack(after), np.where(expected == mask_id, config.vocabulary, expected)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_heads": 5}, "channels 24 must be a multiple of block_heads 5"),
        ({"channels": 32}, "channels must differ from hidden, got 32 for both"),
        ({"halved": True, "grid": 15}, "grid must be even where it is halved, got 15"),
        ({"condition_width": 7}, "condition_width must be even, got 7"),
        ({"text_length": 1}, "text_length must be at least 2"),
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
    ],
)
def test_a_configuration_that_no_network_has_is_refused(
    changes: dict[str, Any], message: str, model: UVit
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(model.config, **changes)


def test_a_step_reads_the_context_and_never_the_text(model: UVit, answers: dict[str, Any]) -> None:
    graph, state = nnx.split(model)
    texts, tokens = drawn_texts(model.config)[:1], answers["tokens"][:1] % model.config.vocabulary
    context = jax.jit(model.context)(texts, jnp.ones(texts.shape[:2], bool))

    def logits(state: nnx.State) -> jax.Array:
        return nnx.merge(graph, state).logits(tokens, context, jnp.ones(1, bool)).sum()

    used = jax.jit(jax.grad(logits))(state)

    for once in ("text_projection", "condition_in", "condition_out"):
        assert not np.any(used[once]["kernel"][...])
    for once in ("attention_adapt", "cross_adapt", "mlp_adapt"):
        assert not np.any(used["blocks"][once]["kernel"][...])
    assert not np.any(used["blocks"]["cross"]["key_value"]["kernel"][...])
    assert np.any(used["blocks"]["cross"]["query"]["kernel"][...])
    assert not np.any(used["down_blocks"]["text"]["kernel"][...])
    assert np.any(used["down_blocks"]["depthwise"]["kernel"][...])
