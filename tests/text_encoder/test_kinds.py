"""T5 1.0 and UMT5 answer as transformers' encoders do, within 1e-4 in float32."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from services.nn.parameters import with_parameters
from services.nn.quantization import with_weights
from services.text_encoder.huggingface import read_huggingface
from services.text_encoder.model import TextEncoder
from tests.drawn_tensors import drawn_tensors
from tests.text_encoder.huggingface_folders import golden, write_encoder

TOLERANCE = 1e-4
KINDS = ("t5_1_0", "umt5")


def encoder_in(folder: Path) -> TextEncoder:
    """The encoder of a folder."""
    read = read_huggingface(folder)
    return with_parameters(lambda: TextEncoder(read.config, rngs=nnx.Rngs(0)), read.parameters)


def assert_same(encoder: TextEncoder, answer: dict[str, np.ndarray]) -> None:
    """Compares where there is text."""
    made = jax.jit(encoder.__call__)(answer["ids"], answer["mask"])
    mask = answer["mask"]
    np.testing.assert_allclose(np.asarray(made)[mask], answer["output"][mask], atol=TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_equal_the_committed_ones_of_transformers(kind: str, tmp_path: Path) -> None:
    answers, encoder = golden(kind), encoder_in(write_encoder(tmp_path, kind))

    for index in range(2):
        parts = ("ids", "mask", "output")
        assert_same(encoder, {part: answers[f"{index}.{part}"] for part in parts})


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "t5", "feed_forward_proj": "relu", "num_layers": 1},
        {"model_type": "t5", "feed_forward_proj": "gated-gelu", "num_layers": 2},
        {"model_type": "umt5", "feed_forward_proj": "gated-gelu", "num_layers": 2},
    ],
)
def test_embeddings_equal_those_of_transformers_where_it_is_installed(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tests.goldens.text_encoder.regenerate import answer
    from tests.goldens.text_encoder.regenerate_kinds import SHAPE, drawn_encoder

    reference, shapes = drawn_encoder({**SHAPE, "num_heads": 5, **fields})
    reference.save_pretrained(tmp_path)
    drawn = drawn_tensors(shapes)

    read = read_huggingface(tmp_path)
    np.testing.assert_array_equal(read.parameters["embedding"], drawn["shared.weight"])
    assert_same(encoder_in(tmp_path), answer(reference, (33, 140, 64), seed=11))


def test_int8_weights_leave_the_position_biases_of_layers_as_they_are(tmp_path: Path) -> None:
    read = read_huggingface(write_encoder(tmp_path, "umt5"))

    def build() -> TextEncoder:
        return TextEncoder(read.config, rngs=nnx.Rngs(0))

    rough = with_weights(build, read.parameters, dtype=jnp.float32, weights="int8")
    answers = golden("umt5")
    made = rough(jnp.asarray(answers["0.ids"]), jnp.asarray(answers["0.mask"]))
    np.testing.assert_array_equal(rough.relative_bias[...], read.parameters["relative_bias"])
    error = np.asarray(made) - answers["0.output"]
    assert 1e-4 < np.sqrt(np.mean(error**2)) < 0.1 * np.std(answers["0.output"])


def test_each_layer_of_umt5_uses_its_own_bias(tmp_path: Path) -> None:
    read = read_huggingface(write_encoder(tmp_path, "umt5"))
    buckets, layers = read.config.relative_buckets, read.config.layers
    assert read.parameters["relative_bias"].shape == (layers * buckets, read.config.heads)
    answers = golden("umt5")
    ids, mask = jnp.asarray(answers["0.ids"]), jnp.asarray(answers["0.mask"])

    for layer in range(layers):
        bias = read.parameters["relative_bias"].copy()
        bias[layer * buckets : (layer + 1) * buckets] = 0
        changed = with_parameters(
            lambda: TextEncoder(read.config, rngs=nnx.Rngs(0)),
            {**read.parameters, "relative_bias": bias},
        )
        assert np.abs(np.asarray(changed(ids, mask)) - answers["0.output"]).max() > 0.01
