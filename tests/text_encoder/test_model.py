"""Properties of the T5 encoder that no golden shows by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from services.presets import preset
from services.text_encoder.config import T5_XXL
from services.text_encoder.model import TextEncoder, relative_buckets
from tests.counting import parameter_count

DEMO, TINY = preset("demo").text_encoder, preset("tiny").text_encoder


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(TINY, rngs=nnx.Rngs(0))


def random_ids(length: int) -> np.ndarray:
    """One row of text."""
    return np.random.default_rng(length).integers(2, TINY.vocabulary_size, (1, length))


def test_t5_xxl_has_the_parameters_of_the_released_encoder() -> None:
    assert parameter_count(lambda: TextEncoder(T5_XXL, rngs=nnx.Rngs(0))) == 4_762_310_656


def test_what_lies_in_the_padding_does_not_matter(encoder: TextEncoder) -> None:
    ids = np.concatenate([random_ids(5), random_ids(3)], axis=1)
    mask = np.arange(8)[None, :] < 5

    alone = encoder(jnp.asarray(ids[:, :5]), jnp.ones((1, 5), bool))
    padded = encoder(jnp.asarray(ids), jnp.asarray(mask))

    np.testing.assert_allclose(padded[:, :5], alone, atol=1e-5)
    assert not np.any(padded[:, 5:])


def test_a_row_without_any_text_is_zero_and_not_nan(encoder: TextEncoder) -> None:
    embeddings = encoder(jnp.zeros((1, 4), jnp.int32), jnp.zeros((1, 4), bool))

    assert np.array_equal(embeddings, np.zeros((1, 4, TINY.hidden)))


def test_the_order_of_words_matters(encoder: TextEncoder) -> None:
    ids, mask = random_ids(6), jnp.ones((1, 6), bool)

    forwards = encoder(jnp.asarray(ids), mask)
    backwards = encoder(jnp.asarray(ids[:, ::-1].copy()), mask)[:, ::-1]

    assert np.max(np.abs(forwards - backwards)) > 1e-3


def test_a_fresh_encoder_already_tells_which_of_two_words_comes_first() -> None:
    encoder, mask = TextEncoder(DEMO, rngs=nnx.Rngs(0)), jnp.ones((1, 8), bool)
    ids = np.array([[3, 20, 5, 6, 7, 3, 30, 1]])
    swapped = ids.copy()
    swapped[0, [1, 6]] = ids[0, [6, 1]]

    first, last = encoder(jnp.asarray(ids), mask)[0, 1], encoder(jnp.asarray(swapped), mask)[0, 6]

    assert np.linalg.norm(first - last) > 0.2 * np.linalg.norm(first)


def test_near_distances_have_their_own_bucket_and_far_ones_the_last() -> None:
    buckets = relative_buckets(1, 400, buckets=32, maximum_distance=128, bidirectional=True)[0]

    assert buckets[0] == 0
    assert buckets[1:8].tolist() == list(range(17, 24))
    assert np.all(np.diff(buckets[1:]) >= 0)
    assert np.all(buckets[128:] == 31)


def test_a_causal_bias_lays_everything_ahead_into_bucket_zero() -> None:
    buckets = relative_buckets(5, 5, buckets=32, maximum_distance=128, bidirectional=False)

    assert not np.any(np.triu(buckets))
    assert buckets[4].tolist() == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_encoder_exports_for_every_platform(encoder: TextEncoder, platform: str) -> None:
    graph, state = nnx.split(encoder)
    program = jax.jit(lambda state, ids, mask: nnx.merge(graph, state)(ids, mask))
    shape = (2, 16)

    exported = jax.export.export(program, platforms=[platform])(
        state, jax.ShapeDtypeStruct(shape, jnp.int32), jax.ShapeDtypeStruct(shape, jnp.bool)
    )

    assert exported.platforms == (platform,)
    assert exported.out_avals[0].shape == (*shape, TINY.hidden)
