"""The encoder answers as transformers' T5EncoderModel does, within 1e-4 in float32."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from services.nn.parameters import with_parameters
from services.text_encoder.huggingface import read_huggingface
from services.text_encoder.model import TextEncoder

GOLDENS = Path(__file__).parents[1] / "goldens" / "text_encoder"
BATCHES = ("one_token", "one_row", "equal_rows", "padded_rows", "beyond_the_last_bucket")
TOLERANCE = 1e-4


def encoder_in(folder: Path) -> TextEncoder:
    """The encoder of a folder in Hugging Face's layout."""
    read = read_huggingface(folder)
    return with_parameters(lambda: TextEncoder(read.config, rngs=nnx.Rngs(0)), read.parameters)


def assert_same(encoder: TextEncoder, answer: dict[str, np.ndarray]) -> None:
    """Compares where there is text; padding is zero here and arbitrary there."""
    graph, state = nnx.split(encoder)
    made = jax.jit(lambda state, ids, mask: nnx.merge(graph, state)(ids, mask))(
        state, answer["ids"], answer["mask"]
    )
    np.testing.assert_allclose(
        np.asarray(made)[answer["mask"]], answer["output"][answer["mask"]], atol=TOLERANCE
    )
    assert not np.any(np.asarray(made)[~answer["mask"]])


@pytest.mark.parametrize("name", BATCHES)
def test_embeddings_equal_the_committed_answers_of_pytorch(name: str) -> None:
    with np.load(GOLDENS / "answers.npz") as answers:
        answer = {kind: answers[f"{name}.{kind}"] for kind in ("ids", "mask", "output")}

    assert_same(encoder_in(GOLDENS / "encoder"), answer)


@pytest.mark.parametrize("name", ["one_row", "padded_rows"])
def test_bfloat16_stays_near_the_answers_of_pytorch(name: str) -> None:
    read = read_huggingface(GOLDENS / "encoder")
    encoder = with_parameters(
        lambda: TextEncoder(
            read.config, rngs=nnx.Rngs(0), dtype=jnp.bfloat16, param_dtype=jnp.bfloat16
        ),
        read.parameters,
        dtype=jnp.bfloat16,
    )
    with np.load(GOLDENS / "answers.npz") as answers:
        ids, mask, output = (answers[f"{name}.{kind}"] for kind in ("ids", "mask", "output"))

    made = encoder(jnp.asarray(ids), jnp.asarray(mask))

    assert made.dtype == jnp.bfloat16
    error = np.asarray(made, np.float32)[mask] - output[mask]
    assert np.sqrt(np.mean(error**2)) < 0.05 * np.std(output[mask])


@pytest.mark.parametrize(
    ("heads", "head_dim", "layers", "buckets", "distance"),
    [(2, 8, 1, 32, 128), (5, 4, 2, 16, 20)],
)
@pytest.mark.parametrize("lengths", [(1,), (9, 3), (33, 140, 64)])
def test_embeddings_equal_those_of_pytorch_where_it_is_installed(
    tmp_path: Path,
    lengths: tuple[int, ...],
    heads: int,
    head_dim: int,
    layers: int,
    buckets: int,
    distance: int,
) -> None:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    specification = importlib.util.spec_from_file_location("regenerate", GOLDENS / "regenerate.py")
    assert specification is not None
    assert specification.loader is not None
    regenerate = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(regenerate)
    config = transformers.T5Config(
        vocab_size=50,
        d_model=24,
        d_kv=head_dim,
        d_ff=40,
        num_layers=layers,
        num_heads=heads,
        relative_attention_num_buckets=buckets,
        relative_attention_max_distance=distance,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    encoder = regenerate.random_encoder(config, seed=7)
    encoder.save_pretrained(tmp_path)

    assert_same(encoder_in(tmp_path), regenerate.answer(encoder, lengths, seed=11))
