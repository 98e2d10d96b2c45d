"""A published VQGAN as the service computes it: precision, sizes, what its tokens depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jaxtyping import Array

from services.nn.compiling import traced_for
from services.tokenizer.families import AnyTokenizer
from services.tokenizer.programs import served_tokenizer
from services.tokenizer.vqgan import Vqgan
from services.tokenizer.vqgan_config import VqganConfig
from tests.chip_rounding import as_a_chip_computes

CONFIG = VqganConfig(
    image_size=8,
    stem_channels=32,
    channels=(32, 32),
    residual_blocks=1,
    decoder_residual_blocks=1,
    attention_levels=(1,),
    middle_attention=True,
    latent_channels=8,
    codebook_size=2048,
    code_dim=8,
    l2_normalised_codes=True,
    signed_pixels=False,
)
IMAGES = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3), minval=-1.0)


@pytest.fixture(scope="module")
def vqgan() -> Vqgan:
    return Vqgan(CONFIG, rngs=nnx.Rngs(0))


def both(vqgan: AnyTokenizer, images: Array) -> tuple[Array, Array]:
    """Tokens of images, and the pixels of these."""
    tokens = vqgan.encode(images)
    return tokens, vqgan.decode(tokens)


def test_a_picture_has_the_tokens_of_float32_on_a_chip_that_rounds(vqgan: Vqgan) -> None:
    with traced_for("tpu"):
        tokens, decoded = jax.jit(lambda images: both(vqgan, images))(IMAGES)
        on_chip = jax.jit(as_a_chip_computes(lambda images: both(vqgan, images)))(IMAGES)

    np.testing.assert_array_equal(on_chip[0], tokens)
    assert np.abs(on_chip[1] - decoded).max() > 1e-4


def test_bfloat16_rounds_the_decoder_alone() -> None:
    exact, rough = (served_tokenizer(CONFIG, each) for each in ("float32", "bfloat16"))

    (tokens, pixels), (same, rounded) = (
        jax.jit(lambda images, each=each: both(each, images))(IMAGES) for each in (exact, rough)
    )
    np.testing.assert_array_equal(same, tokens)
    assert 1e-5 < np.abs(rounded - pixels).max() < 0.1


def test_a_token_depends_on_the_whole_picture(vqgan: Vqgan) -> None:
    changed = IMAGES.at[:, :2, :2].set(1.0)

    encoder = jax.jit(vqgan.encoder.__call__)
    features = [np.asarray(encoder((images + 1) / 2)) for images in (IMAGES, changed)]
    assert np.abs(features[0] - features[1])[:, -1, -1].max() > 1e-4


def test_pixels_stay_in_their_range_and_sizes_are_multiples_of_the_factor(vqgan: Vqgan) -> None:
    pixels = np.asarray(jax.jit(vqgan.decode)(jnp.zeros((1, 3, 5), jnp.int32)))
    assert pixels.shape == (1, 6, 10, 3)
    assert np.abs(pixels).max() <= 1
    with pytest.raises(ValueError, match="both sides must be multiples of 2"):
        vqgan.encode(IMAGES[:, :7])
