"""Point 8 of the method: the VQGAN is fully convolutional, and its codes are the nearest ones."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from services.nn.options import LayerOptions
from services.nn.parameters import parameters_of
from services.nn.quantizer import nearest_codes
from services.presets import preset
from services.tokenizer.model import Tokenizer, Upsample
from tests.counting import parameter_count
from training.optimizers import TOKENIZER_PAPER
from training.tasks.tokenizer_losses import TokenizerLosses

F16_256, F8_512 = preset("muse-3b").low_tokenizer, preset("muse-3b").high_tokenizer
TINY_LOW = preset("tiny").low_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(TINY_LOW, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("size", [(16, 16), (8, 24), (40, 4)])
def test_any_size_that_the_factor_divides_is_encoded_and_decoded(
    tokenizer: Tokenizer, size: tuple[int, int]
) -> None:
    images = jax.random.uniform(jax.random.key(1), (2, *size, 3), minval=-1.0)
    ids = tokenizer.encode(images)
    assert ids.shape == (2, size[0] // TINY_LOW.factor, size[1] // TINY_LOW.factor)
    assert tokenizer.decode(ids).shape == images.shape


def test_a_token_depends_on_what_is_near_it_alone(tokenizer: Tokenizer) -> None:
    images = jax.random.uniform(jax.random.key(2), (1, 16, 96, 3), minval=-1.0)
    other = images.at[:, :, 80:].set(0.0)
    features, changed = tokenizer.encoder(images), tokenizer.encoder(other)
    np.testing.assert_array_equal(features[:, :, :8], changed[:, :, :8])
    assert not np.allclose(features[:, :, -1], changed[:, :, -1])


@pytest.mark.parametrize("size", [(4, 4), (16, 16), (12, 40)])
def test_a_plain_picture_is_one_code_however_near_the_border(
    tokenizer: Tokenizer, size: tuple[int, int]
) -> None:
    plain = jnp.broadcast_to(jnp.array([0.5, -0.2, 0.1]), (1, *size, 3))
    features = tokenizer.encoder(plain)
    np.testing.assert_allclose(features, jnp.broadcast_to(features[:, :1, :1], features.shape))
    ids = tokenizer.encode(plain)
    assert (ids == ids[0, 0, 0]).all()
    again = tokenizer.decode(ids)
    patch = again[:, : TINY_LOW.factor, : TINY_LOW.factor]
    repeats = (1, size[0] // TINY_LOW.factor, size[1] // TINY_LOW.factor, 1)
    np.testing.assert_allclose(again, jnp.tile(patch, repeats), atol=1e-5)


def test_a_thing_has_the_same_tokens_wherever_it_is_and_whatever_is_far_from_it() -> None:
    config = preset("demo").low_tokenizer
    tokenizer = Tokenizer(config, rngs=nnx.Rngs(0))
    thing = jax.random.uniform(jax.random.key(5), (24, 24, 3), minval=-1.0)

    def tokens(row: int, column: int, far: float) -> jax.Array:
        """Three tokens a side of the thing on a plain ground, one corner of which is changed."""
        picture = jnp.full((1, 64, 64, 3), 0.25).at[:, :8, :8].set(far)
        top, left = row * config.factor, column * config.factor
        picture = picture.at[0, top : top + 24, left : left + 24].set(thing)
        return tokenizer.encoder(picture)[:, row : row + 3, column : column + 3]

    here = tokens(3, 2, 0.25)
    np.testing.assert_allclose(tokens(4, 4, 0.25), here, atol=1e-5)
    np.testing.assert_allclose(tokens(2, 2, -1.0), here, atol=1e-5)  # a token between
    assert not np.allclose(tokens(1, 1, -1.0), here, atol=1e-5)


def test_a_token_of_an_encoder_without_overlaps_depends_on_its_own_pixels_alone() -> None:
    config = replace(TINY_LOW, encoder_kernels=(1, 1, 1), encoder_overlaps=False)
    tokenizer, side = Tokenizer(config, rngs=nnx.Rngs(0)), config.factor
    picture = jax.random.uniform(jax.random.key(7), (1, 5 * side, 4 * side, 3), minval=-1.0)
    before = tokenizer.encoder(picture)
    own = slice(2 * side, 3 * side)
    after = tokenizer.encoder(picture.at[:, own, own].set(-picture[:, own, own]))
    changed = np.abs(after - before).max(axis=(0, 3)) > 0
    assert np.argwhere(changed).tolist() == [[2, 2]]


@pytest.mark.parametrize("kernels", [(3, 3), (3, 2, 1), ()])
def test_kernels_of_another_number_or_size_are_refused(kernels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="encoder_kernels must"):
        replace(TINY_LOW, encoder_kernels=kernels)


def test_the_decoder_repeats_pixels_and_then_convolves() -> None:
    options = LayerOptions(rngs=nnx.Rngs(0), dtype=jnp.float32, param_dtype=jnp.float32)
    features = jax.random.normal(jax.random.key(6), (1, 3, 4, 2))
    layer = Upsample(2, 5, repeat_first=True, **options)
    repeated = np.repeat(np.repeat(features, 2, axis=1), 2, axis=2)
    np.testing.assert_allclose(layer(features), layer.project(jnp.asarray(repeated)), atol=1e-6)
    for name in ("muse-3b", "muse-632m", "demo256", "tiny"):
        assert preset(name).low_tokenizer.repeat_first
        assert preset(name).high_tokenizer.repeat_first


def test_no_layer_attends() -> None:
    names = parameters_of(Tokenizer(TINY_LOW, rngs=nnx.Rngs(0)))
    kernels = [value for name, value in names.items() if name.endswith("kernel")]
    assert kernels
    assert all(kernel.ndim == 4 for kernel in kernels)


def test_the_nearest_code_is_found_the_same_in_chunks_and_by_brute_force() -> None:
    vectors = jax.random.normal(jax.random.key(3), (3, 70, 5))
    codebook = jax.random.normal(jax.random.key(4), (19, 5))
    distances = np.sum((np.asarray(vectors)[..., None, :] - np.asarray(codebook)) ** 2, axis=-1)
    for chunk in (1, 16, 70, 128):
        found = nearest_codes(vectors, codebook, chunk=chunk)
        np.testing.assert_array_equal(found, np.argmin(distances, axis=-1))


def test_ties_go_to_the_lower_id() -> None:
    codebook = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert nearest_codes(jnp.array([[[2.0, 0.0]]]), codebook).tolist() == [[0]]


def test_a_grid_of_64_by_64_never_builds_the_whole_table_of_distances() -> None:
    codebook = jnp.zeros((8192, 4))
    program = jax.jit(nearest_codes).lower(jnp.zeros((1, 4096, 4)), codebook).compile()
    analysis = program.memory_analysis()
    assert analysis is not None
    assert analysis.temp_size_in_bytes < 4096 * 8192 * 4 / 2


def test_the_shapes_and_the_recipe_are_the_papers() -> None:
    for config, factor in ((F16_256, 16), (F8_512, 8)):
        assert (config.factor, config.codebook_size) == (factor, 8192)
        assert (config.residual_blocks, config.base_channels) == (2, 128)
    assert (F8_512.decoder_residual_blocks, F8_512.decoder_base_channels) == (4, 256)
    losses = TokenizerLosses()
    assert (losses.perceptual, losses.adversarial, losses.commitment) == (0.05, 0.1, 0.25)
    assert not losses.adaptive_adversarial
    assert (losses.entropy, losses.lecam, losses.r1) == (0, 0, 0)
    recipe = TOKENIZER_PAPER
    assert (recipe.learning_rate, recipe.weight_decay) == (1e-4, 1e-4)
    assert (recipe.first_decay, recipe.second_decay) == (0.9, 0.99)
    assert (recipe.batch_size, recipe.warm_up_steps) == (256, 10_000)


def test_the_fine_tuned_decoder_loads_in_the_place_of_the_plain_one() -> None:
    wide = replace(TINY_LOW, decoder_base_channels=16, decoder_residual_blocks=4)
    plain, fine = (Tokenizer(config, rngs=nnx.Rngs(0)) for config in (TINY_LOW, wide))
    same = {"encoder", "quantizer"}
    first, second = parameters_of(plain), parameters_of(fine)
    kept = {name for name in first if name.split(".")[0] in same}
    assert all(first[name].shape == second[name].shape for name in kept)
    ids = jnp.zeros((1, 4, 4), jnp.int32)
    assert fine.decode(ids).shape == plain.decode(ids).shape


def test_the_demos_tokenizers_are_small() -> None:
    system = preset("demo")
    for config in (system.low_tokenizer, system.high_tokenizer):
        count = parameter_count(lambda config=config: Tokenizer(config, rngs=nnx.Rngs(0)))
        assert count < 3_000_000
