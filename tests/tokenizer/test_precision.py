"""A tokenizer whose decoder multiplies bfloat16 factors."""

import numpy as np
import pytest
from flax import nnx

from services.nn.compiling import traced_for
from services.nn.parameters import parameters_of
from services.presets import preset
from services.runtime.checkpoints.precision import Precision
from services.runtime.checkpoints.serialization import (
    Checkpoint,
    codebook_fingerprint,
    load_checkpoint,
    save_checkpoint,
)
from services.tokenizer.config import TokenizerConfig
from services.tokenizer.engine import TokenizerEngine
from services.tokenizer.model import CODEBOOK, Tokenizer
from services.tokenizer.programs import served_tokenizer

CONFIG = preset("tiny").high_tokenizer
IDS = np.random.default_rng(0).integers(0, CONFIG.codebook_size, (CONFIG.grid, CONFIG.grid))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint[TokenizerConfig]:
    folder = tmp_path_factory.mktemp("tokenizer")
    model = Tokenizer(CONFIG, rngs=nnx.Rngs(0))
    parameters = {name: np.asarray(value) for name, value in parameters_of(model).items()}
    save_checkpoint(
        folder,
        stage="tokenizer",
        config=CONFIG,
        parameters=parameters,
        fingerprint={"codebook": codebook_fingerprint(parameters[CODEBOOK])},
        record={"preset": "tiny"},
    )
    return load_checkpoint(folder, stage="tokenizer", config_type=TokenizerConfig)


def test_decoding_rounds_and_encoding_does_not(checkpoint: Checkpoint[TokenizerConfig]) -> None:
    exact, rough = (TokenizerEngine(checkpoint, precision) for precision in ("float32", "bfloat16"))
    pictures = [np.asarray(each.start_decode(IDS), np.int32) for each in (exact, rough)]
    apart = np.abs(pictures[0] - pictures[1])
    assert 0 < apart.max() <= 8  # of 255

    pixels = pictures[0].astype(np.uint8)
    np.testing.assert_array_equal(rough.start_encode(pixels), exact.start_encode(pixels))
    assert (exact.digest, rough.digest) == (checkpoint.digest, f"{checkpoint.digest}+bfloat16")
    assert rough.codebook == exact.codebook


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_decoder_of_convolutions_is_that_of_matrix_products(precision: Precision) -> None:
    tokenizer = served_tokenizer(CONFIG, precision)
    in_products = tokenizer.decode(IDS[None])
    with traced_for("tpu"):
        convolved = tokenizer.decode(IDS[None])
    tolerance = 1e-4 if precision == "float32" else 0.03
    np.testing.assert_allclose(in_products, convolved, atol=tolerance)
