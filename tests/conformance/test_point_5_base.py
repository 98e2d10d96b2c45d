"""Points 5 and 3 of the method: the base transformer and its unconditional branch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from services.base.config import BaseConfig
from services.base.model import BaseTransformer
from services.nn.parameters import parameters_of
from services.presets import preset
from tests.counting import parameter_count

MUSE_3B, MUSE_632M, TINY = (preset(name).base for name in ("muse-3b", "muse-632m", "tiny"))
ROWS = 2
TEXT = jax.random.normal(jax.random.key(0), (ROWS, TINY.text_length, TINY.text_hidden))
MASK = jnp.arange(TINY.text_length)[None, :] < jnp.array([[5], [9]])
TOKENS = jax.random.randint(jax.random.key(1), (ROWS, TINY.tokens), 0, TINY.vocabulary + 1)
ALL, NONE = jnp.ones(ROWS, bool), jnp.zeros(ROWS, bool)


@pytest.fixture(scope="module")
def model() -> BaseTransformer:
    return BaseTransformer(TINY, rngs=nnx.Rngs(0))


def test_logits_are_over_the_codes_and_not_over_mask(model: BaseTransformer) -> None:
    logits = model.logits(TOKENS, model.context(TEXT, MASK), ALL)

    assert logits.shape == (ROWS, TINY.tokens, TINY.vocabulary)
    assert logits.dtype == jnp.float32


def test_without_text_cross_attention_adds_nothing_at_all(model: BaseTransformer) -> None:
    unconditional = model.logits(TOKENS, model.context(TEXT, MASK), NONE)
    other_text = model.logits(TOKENS, model.context(TEXT[::-1] * 3, ~MASK), NONE)

    silenced = BaseTransformer(TINY, rngs=nnx.Rngs(0))
    silenced.blocks.cross.output.kernel[...] = jnp.zeros_like(
        silenced.blocks.cross.output.kernel[...]
    )
    removed = silenced.logits(TOKENS, silenced.context(TEXT, MASK), ALL)

    assert np.array_equal(unconditional, other_text)
    np.testing.assert_allclose(unconditional, removed, atol=1e-6)


def test_a_row_with_text_hears_it_whatever_the_other_rows_do(model: BaseTransformer) -> None:
    context = model.context(TEXT, MASK)
    both = model.logits(TOKENS, context, ALL)
    mixed = model.logits(TOKENS, context, jnp.array([True, False]))

    np.testing.assert_allclose(mixed[0], both[0], atol=1e-6)
    assert np.max(np.abs(mixed[1] - both[1])) > 1e-4


def test_padding_of_the_text_is_never_attended_to(model: BaseTransformer) -> None:
    noise = jnp.where(MASK[..., None], TEXT, 100.0)

    np.testing.assert_allclose(
        model.logits(TOKENS, model.context(TEXT, MASK), ALL),
        model.logits(TOKENS, model.context(noise, MASK), ALL),
        atol=1e-5,
    )


def test_the_place_of_a_token_matters_in_both_directions(model: BaseTransformer) -> None:
    same = jnp.full((1, TINY.tokens), TINY.vocabulary)
    logits = model.logits(same, model.context(TEXT[:1], MASK[:1]), ALL[:1])[0]
    grid = np.asarray(logits).reshape(TINY.grid, TINY.grid, -1)

    assert np.max(np.abs(grid[0, 0] - grid[0, 1])) > 1e-4
    assert np.max(np.abs(grid[0, 0] - grid[1, 0])) > 1e-4


@pytest.mark.parametrize(
    ("config", "in_blocks", "in_all"),
    [(MUSE_3B, 3.22e9, 3_267_764_224), (MUSE_632M, 0.604e9, 626_164_736)],
)
def test_the_presets_have_the_parameters_of_the_paper(
    config: BaseConfig, in_blocks: float, in_all: int
) -> None:
    def build() -> BaseTransformer:
        return BaseTransformer(config, rngs=nnx.Rngs(0))

    blocks = nnx.state(nnx.eval_shape(build).blocks, nnx.Param)
    counted = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(blocks))

    assert counted == pytest.approx(in_blocks, rel=0.002)
    assert parameter_count(build) == in_all


def test_one_gradient_step_reaches_every_parameter_and_lowers_the_loss(
    model: BaseTransformer,
) -> None:
    graph, state = nnx.split(model)
    targets = jnp.minimum(TOKENS, TINY.vocabulary - 1)

    @jax.jit
    def loss_of(state: nnx.State) -> jax.Array:
        one = nnx.merge(graph, state)
        logits = one.logits(TOKENS, one.context(TEXT, MASK), ALL)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)
        return -chosen.mean()

    loss, gradients = jax.value_and_grad(loss_of)(state)
    stepped = jax.tree.map(lambda value, slope: value - 0.1 * slope, state, gradients)

    assert all(np.any(leaf) for leaf in parameters_of(nnx.merge(graph, gradients)).values())
    assert loss_of(stepped) < loss
