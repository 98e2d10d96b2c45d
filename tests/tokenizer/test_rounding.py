"""Tokens are those of float32 on a chip that rounds the factors of its products."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from services.nn.compiling import traced_for
from services.nn.quantizer import nearest_codes
from services.presets import preset
from services.tokenizer.config import TokenizerConfig
from services.tokenizer.model import Tokenizer
from tests.chip_rounding import as_a_chip_computes

# Many codes, near enough to each other for bfloat16 to mix them up.
CONFIG = replace(preset("tiny").low_tokenizer, codebook_size=2048)
OVERLAPPING_OFF = replace(CONFIG, encoder_kernels=(1, 1, 1), encoder_overlaps=False)
IMAGES = jax.random.uniform(jax.random.key(0), (8, 32, 32, 3), minval=-1.0)


def test_a_product_s_factors_are_rounded_unless_it_asks_for_all_of_them() -> None:
    factors = jax.random.normal(jax.random.key(1), (2, 64, 64))

    def product(precision: jax.lax.Precision | None) -> jax.Array:
        return as_a_chip_computes(lambda a, b: jnp.matmul(a, b, precision=precision))(*factors)

    exact = np.asarray(factors[0] @ factors[1])
    np.testing.assert_array_equal(product(jax.lax.Precision.HIGHEST), exact)
    assert 1e-3 < np.abs(product(None) - exact).max() < 0.5


def test_the_nearest_code_is_that_of_float32() -> None:
    vectors = jax.random.normal(jax.random.key(2), (3, 1000, 8))
    codebook = jax.random.normal(jax.random.key(3), (2048, 8))

    found = as_a_chip_computes(nearest_codes)(vectors, codebook)

    np.testing.assert_array_equal(found, nearest_codes(vectors, codebook))
    rounded = [each.astype(jnp.bfloat16).astype(jnp.float32) for each in (vectors, codebook)]
    assert np.mean(np.asarray(found != nearest_codes(*rounded))) > 0.001


@pytest.mark.parametrize("config", [CONFIG, OVERLAPPING_OFF])
def test_a_picture_has_the_tokens_of_float32_and_only_its_decoder_rounds(
    config: TokenizerConfig,
) -> None:
    tokenizer = Tokenizer(config, rngs=nnx.Rngs(0))
    with traced_for("tpu"):
        tokens = tokenizer.encode(IMAGES)
        on_chip = as_a_chip_computes(tokenizer.encode)(IMAGES)
        features = as_a_chip_computes(tokenizer.encoder)(IMAGES)
        decoded = as_a_chip_computes(tokenizer.decode)(tokens)

    np.testing.assert_array_equal(on_chip, tokens)
    assert np.mean(np.asarray(tokenizer.quantizer.ids(features) != tokens)) > 0.01
    assert np.abs(decoded - tokenizer.decode(tokens)).max() > 1e-4
