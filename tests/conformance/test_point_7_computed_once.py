"""Point 7 of the method: computations that no decoding step changes happen once per decode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from services.base.config import BaseConfig
from services.base.model import BaseTransformer
from services.nn.attention import attend
from services.nn.transformer import DecoderBlock

CONFIG = BaseConfig(
    grid=4, vocabulary=8, hidden=16, layers=3, heads=2, mlp=32, text_hidden=8, text_length=6
)
TEXT = jax.random.normal(jax.random.key(0), (2, 6, 8))
MASK = jnp.arange(6)[None, :] < jnp.array([[3], [6]])
TOKENS = jax.random.randint(jax.random.key(1), (2, 16), 0, 9)


def uncached_block(
    block: DecoderBlock, tokens: jax.Array, text: jax.Array, length: jax.Array
) -> jax.Array:
    """Runs one block with keys and values made on the spot from the projected text."""
    tokens = tokens + block.attention(block.attention_norm(tokens))
    cross, normed = block.cross, block.cross_norm(tokens)
    split = (2, -1, CONFIG.heads, CONFIG.hidden // CONFIG.heads)
    keys, values = jnp.split(cross.key_value(text), 2, axis=-1)
    queries = cross.query_norm(cross.query(normed).reshape(split))
    cross_out = attend(queries, cross.key_norm(keys.reshape(split)), values.reshape(split), length)
    tokens = tokens + cross.output(cross_out.reshape(tokens.shape))
    return tokens + block.mlp(block.mlp_norm(tokens))


@pytest.fixture(scope="module")
def model() -> BaseTransformer:
    return BaseTransformer(CONFIG, rngs=nnx.Rngs(0))


def test_cached_keys_and_values_give_the_logits_of_uncached_ones(model: BaseTransformer) -> None:
    cached = model.logits(TOKENS, model.context(TEXT, MASK), jnp.ones(2, bool))

    graph, state = nnx.split(model.blocks)
    projected = model.text_norm(model.text_projection(TEXT))
    hidden = model.embedding(TOKENS)
    for layer in range(CONFIG.layers):
        block = nnx.merge(graph, jax.tree.map(lambda leaf, index=layer: leaf[index], state))
        hidden = uncached_block(block, hidden, projected, MASK.sum(axis=-1))

    uncached = model.last_layer(model.head.features(hidden))
    np.testing.assert_allclose(cached, uncached, atol=1e-5)


def test_the_branch_without_text_is_the_one_whose_gate_is_closed(model: BaseTransformer) -> None:
    context = model.context(TEXT, MASK)

    cond, uncond = jnp.split(model.last_layer(model.cfg_batch_features(TOKENS, context)), 2)

    opened, closed = jnp.ones(2, bool), jnp.zeros(2, bool)
    np.testing.assert_allclose(cond, model.logits(TOKENS, context, opened), atol=1e-6)
    np.testing.assert_allclose(uncond, model.logits(TOKENS, context, closed), atol=1e-6)


def test_a_step_reads_the_context_and_never_the_text_or_its_projection(
    model: BaseTransformer,
) -> None:
    graph, state = nnx.split(model)
    context = model.context(TEXT, MASK)

    def logits(state: nnx.State) -> jax.Array:
        return nnx.merge(graph, state).logits(TOKENS, context, jnp.ones(2, bool)).sum()

    used = jax.grad(logits)(state)

    assert not np.any(used["text_projection"]["kernel"][...])
    assert not np.any(used["blocks"]["cross"]["key_value"]["kernel"][...])
    assert np.any(used["blocks"]["cross"]["query"]["kernel"][...])
