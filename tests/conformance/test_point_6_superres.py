"""Point 6 of the method: the super-resolution transformer and its multi-axis attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from services.nn.attention import MultiAxisAttention, SelfAttention, attend
from services.presets import preset
from services.superres.model import SuperresTransformer
from tests.counting import parameter_count

MUSE, TINY = preset("muse-3b").superres, preset("tiny").superres
ROWS = 2
LOW = jax.random.randint(jax.random.key(0), (ROWS, TINY.low_tokens), 0, TINY.low_vocabulary)
TEXT = jax.random.normal(jax.random.key(1), (ROWS, TINY.text_length, TINY.text_hidden))
MASK = jnp.arange(TINY.text_length)[None, :] < jnp.array([[5], [9]])
TOKENS = jax.random.randint(jax.random.key(2), (ROWS, TINY.tokens), 0, TINY.vocabulary + 1)
ALL, NONE = jnp.ones(ROWS, bool), jnp.zeros(ROWS, bool)


@pytest.fixture(scope="module")
def model() -> SuperresTransformer:
    return SuperresTransformer(TINY, rngs=nnx.Rngs(0))


def test_multi_axis_attention_equals_a_naive_loop_over_positions() -> None:
    side, block, hidden, heads = 8, 4, 16, 4
    layer = MultiAxisAttention(
        hidden, heads, block=block, rngs=nnx.Rngs(0), dtype=jnp.float32, param_dtype=jnp.float32
    )
    tokens = jax.random.normal(jax.random.key(0), (2, side * side, hidden))
    queries, keys, values = (np.asarray(part) for part in layer.attention.heads_of(tokens))

    gathered = np.zeros_like(queries)
    places = [divmod(index, side) for index in range(side * side)]
    for head in range(heads):
        for index, (row, column) in enumerate(places):
            if head < heads // 2:
                members = [
                    other
                    for other, (r, c) in enumerate(places)
                    if r // block == row // block and c // block == column // block
                ]
            else:
                members = [
                    other
                    for other, (r, c) in enumerate(places)
                    if r % block == row % block and c % block == column % block
                ]
            scores = np.einsum("bk,bmk->bm", queries[:, index, head], keys[:, members, head])
            weights = np.asarray(jax.nn.softmax(scores / np.sqrt(hidden // heads)))
            gathered[:, index, head] = np.einsum("bm,bmk->bk", weights, values[:, members, head])
    expected = layer.attention.output(jnp.asarray(gathered).reshape(tokens.shape))

    np.testing.assert_allclose(layer(tokens), expected, atol=1e-5)


def test_a_block_as_large_as_the_grid_attends_to_everything_in_half_of_the_heads() -> None:
    kinds = {"dtype": jnp.float32, "param_dtype": jnp.float32}
    layer = MultiAxisAttention(8, 2, block=4, rngs=nnx.Rngs(0), **kinds)
    tokens = jax.random.normal(jax.random.key(0), (1, 16, 8))
    plain: SelfAttention = layer.attention
    queries, keys, values = plain.heads_of(tokens)

    everywhere = attend(queries, keys, values)[:, :, :1]
    itself = values[:, :, 1:]
    expected = plain.output(jnp.concatenate([everywhere, itself], axis=2).reshape(1, 16, 8))

    np.testing.assert_allclose(layer(tokens), expected, atol=1e-5)


def test_other_low_resolution_tokens_give_other_logits_with_and_without_text(
    model: SuperresTransformer,
) -> None:
    changed = LOW.at[:, 3].set((LOW[:, 3] + 1) % TINY.low_vocabulary)

    for conditional in (ALL, NONE):
        before = model.logits(TOKENS, model.context(LOW, TEXT, MASK), conditional)
        after = model.logits(TOKENS, model.context(changed, TEXT, MASK), conditional)
        assert np.max(np.abs(before - after)) > 1e-4


def test_without_text_the_text_is_not_attended_to(model: SuperresTransformer) -> None:
    context, other = model.context(LOW, TEXT, MASK), model.context(LOW, TEXT[::-1] * 2, MASK)

    np.testing.assert_allclose(
        model.logits(TOKENS, context, NONE), model.logits(TOKENS, other, NONE), atol=1e-6
    )
    text_difference = model.logits(TOKENS, context, ALL) - model.logits(TOKENS, other, ALL)
    assert np.max(np.abs(text_difference)) > 1e-4


def test_both_branches_at_once_are_each_by_itself(model: SuperresTransformer) -> None:
    context = model.context(LOW, TEXT, MASK)
    cond, uncond = jnp.split(model.last_layer(model.cfg_batch_features(TOKENS, context)), 2)
    np.testing.assert_allclose(cond, model.logits(TOKENS, context, ALL), atol=1e-6)
    np.testing.assert_allclose(uncond, model.logits(TOKENS, context, NONE), atol=1e-6)


def test_the_low_resolution_tokens_have_positions_of_their_own(
    model: SuperresTransformer,
) -> None:
    swapped = LOW.at[:, 0].set(LOW[:, 5]).at[:, 5].set(LOW[:, 0])

    before = model.logits(TOKENS, model.context(LOW, TEXT, MASK), ALL)
    after = model.logits(TOKENS, model.context(swapped, TEXT, MASK), ALL)

    assert np.max(np.abs(before - after)) > 1e-4


def test_the_paper_s_shape_has_the_paper_s_parameters() -> None:
    def build() -> SuperresTransformer:
        return SuperresTransformer(MUSE, rngs=nnx.Rngs(0))

    abstract = nnx.eval_shape(build)
    blocks = [nnx.state(stack, nnx.Param) for stack in (abstract.blocks, abstract.low_blocks)]
    counted = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(blocks))

    assert counted == pytest.approx(0.74e9, rel=0.005)
    assert parameter_count(build) == 768_924_672
