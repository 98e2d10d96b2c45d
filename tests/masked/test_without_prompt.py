"""A decode without a prompt is unconditional, as the other branch of guidance is."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from services.base.model import BaseTransformer
from services.presets import preset
from services.superres.model import SuperresTransformer
from tests.masked.conftest import Stage

TINY = preset("tiny")
LENGTH, HIDDEN = TINY.base.text_length, TINY.base.text_hidden


def test_a_text_of_no_tokens_equals_no_text_in_either_transformer() -> None:
    random = np.random.default_rng(0)
    some_text = jnp.asarray(random.normal(size=(1, LENGTH, HIDDEN)), jnp.float32)
    no_text, nowhere = jnp.zeros_like(some_text), jnp.zeros((1, LENGTH), bool)
    everywhere = jnp.ones((1, LENGTH), bool)
    base = BaseTransformer(TINY.base, rngs=nnx.Rngs(0))
    superres = SuperresTransformer(TINY.superres, rngs=nnx.Rngs(1))
    low = jnp.asarray(random.integers(0, TINY.base.vocabulary, (1, TINY.base.grid**2)))
    for model, given, grid in (
        (base, (), TINY.base.grid),
        (superres, (low,), TINY.superres.grid),
    ):
        tokens = jnp.full((1, grid**2), model.config.vocabulary)
        silent: Any = model.context(*given, no_text, nowhere)
        spoken: Any = model.context(*given, some_text, everywhere)
        conditional, unconditional = jnp.ones(1, bool), jnp.zeros(1, bool)

        without = model.logits(tokens, silent, conditional)
        np.testing.assert_allclose(without, model.logits(tokens, spoken, unconditional), atol=1e-5)
        assert jnp.abs(without - model.logits(tokens, spoken, conditional)).max() > 1e-3


@pytest.mark.asyncio(loop_scope="module")
async def test_both_servers_decode_without_one(base: Stage, superres: Stage) -> None:
    for stage in (base, superres):
        request = stage.request()
        request.ClearField("prompt")
        said, unsaid = [await stage.events(each) for each in (stage.request(), request)]
        assert unsaid[-1].result.tokens != said[-1].result.tokens
