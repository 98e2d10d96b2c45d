"""Tests for the engine: buckets, batches, loading, and what cannot be loaded."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from services.nn.parameters import parameters_of
from services.presets import preset
from services.runtime.checkpoints.errors import (
    CheckpointDamaged,
    CheckpointMismatch,
    CheckpointNotFound,
)
from services.text_encoder.engine import TextEncoderEngine
from services.text_encoder.folders import find_folder
from services.text_encoder.loading import load_text_encoder
from services.text_encoder.programs import doubling
from services.text_encoder.vocabulary import FILE_NAME, PromptTooLong

TINY = preset("tiny").text_encoder
GOLDENS = Path(__file__).parents[1] / "goldens" / "text_encoder"
TEXTS = ("a fox", "", "two keys and a sun", "three red foxes on a green background, flat style")


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> TextEncoderEngine:
    engine = TextEncoderEngine(load_text_encoder(checkpoint), max_batch_size=4)
    engine.warm_up()
    return engine


def copied(checkpoint: Path, folder: Path) -> Path:
    """A copy that a test may spoil."""
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_buckets_double_and_end_with_the_limit() -> None:
    assert doubling(16, 128) == (16, 32, 64, 128)
    assert doubling(1, 6) == (1, 2, 4, 6)
    assert doubling(16, 12) == (12,)


def test_a_text_has_the_same_embedding_alone_and_in_company(engine: TextEncoderEngine) -> None:
    rows = [engine.tokenize(text) for text in TEXTS]

    together = engine.embed(rows)

    for row, embedding in zip(rows, together, strict=True):
        alone = engine.embed([row])[0]
        assert len(embedding) == len(row)
        np.testing.assert_array_equal(embedding, alone)


def test_more_texts_than_fit_a_batch_come_back_in_their_order(engine: TextEncoderEngine) -> None:
    rows = [engine.tokenize(text) for text in TEXTS * 3]

    embeddings = engine.embed(rows)

    assert [len(embedding) for embedding in embeddings] == [len(row) for row in rows]


def test_nothing_compiles_after_the_warm_up(engine: TextEncoderEngine) -> None:
    compiled = engine._embed._cache_size()

    for count in (1, 2, 3, 4, 5):
        engine.embed([engine.tokenize(text) for text in (TEXTS * 2)[:count]])

    assert compiled == len(engine.lengths)
    assert engine._embed._cache_size() == compiled


def test_embeddings_travel_in_bfloat16(engine: TextEncoderEngine) -> None:
    values = engine.embed([engine.tokenize("a fox")])[0]

    assert values.dtype == jnp.bfloat16
    assert values.shape[1] == TINY.hidden


def test_a_prompt_that_does_not_fit_is_refused_with_its_counts(engine: TextEncoderEngine) -> None:
    with pytest.raises(PromptTooLong) as caught:
        engine.tokenize("fox " * TINY.maximum_length)
    assert (caught.value.tokens, caught.value.limit) == (
        TINY.maximum_length + 1,
        TINY.maximum_length,
    )


def test_int8_weights_move_an_embedding_little_and_its_company_not_at_all(
    checkpoint: Path, engine: TextEncoderEngine
) -> None:
    int8 = TextEncoderEngine(load_text_encoder(checkpoint, weights="int8"), max_batch_size=4)
    rows = [engine.tokenize(text) for text in TEXTS]

    for full, row, embedding in zip(engine.embed(rows), rows, int8.embed(rows), strict=True):
        np.testing.assert_array_equal(embedding, int8.embed([row])[0])
        expected, made = full.astype(np.float32), embedding.astype(np.float32)
        assert not np.array_equal(expected, made)
        assert np.linalg.norm(made - expected) < 0.03 * np.linalg.norm(expected)


def test_bfloat16_is_near_float32_and_the_same_in_company(
    checkpoint: Path, engine: TextEncoderEngine
) -> None:
    rough = TextEncoderEngine(load_text_encoder(checkpoint, dtype=jnp.bfloat16), max_batch_size=4)
    rows = [engine.tokenize(text) for text in TEXTS]
    for exact, row, embedding in zip(engine.embed(rows), rows, rough.embed(rows), strict=True):
        np.testing.assert_array_equal(embedding, rough.embed([row])[0])
        expected, made = exact.astype(np.float32), embedding.astype(np.float32)
        assert np.linalg.norm(made - expected) < 0.02 * np.linalg.norm(expected)
    assert rough.loaded.encoder.dtype == jnp.float32  # between products, on a CPU
    assert rough.loaded.encoder.embedding.dtype == jnp.bfloat16


def test_precision_is_part_of_what_weights_are_called_but_not_of_what_embeddings_are(
    checkpoint: Path, engine: TextEncoderEngine
) -> None:
    int8 = load_text_encoder(checkpoint, dtype=jnp.bfloat16, weights="int8")

    assert (engine.loaded.precision, int8.precision) == ("float32", "int8+bfloat16")
    assert int8.digest == f"{engine.loaded.digest}+int8+bfloat16"
    assert int8.fingerprint == engine.loaded.fingerprint


def test_float16_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="T5 exceeds the range of float16"):
        load_text_encoder(checkpoint, dtype=jnp.float16)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match=r"expected a folder or a hub id .*nowhere"):
        load_text_encoder(tmp_path / "nowhere" / "at" / "all")


def test_something_that_is_neither_folder_nor_hub_id_is_refused() -> None:
    with pytest.raises(CheckpointNotFound, match="expected a folder or a hub id"):
        find_folder("no such thing")


def test_a_checkpoint_without_its_vocabulary_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (copied(checkpoint, tmp_path) / FILE_NAME).unlink()

    with pytest.raises(CheckpointNotFound, match=r"expected the file spiece\.model"):
        load_text_encoder(tmp_path)


def test_truncated_weights_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    weights = copied(checkpoint, tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    with pytest.raises(CheckpointDamaged, match="is not what was written"):
        load_text_encoder(tmp_path)


def test_the_vocabulary_of_another_encoder_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    vocabulary = copied(checkpoint, tmp_path) / FILE_NAME
    content = bytearray(vocabulary.read_bytes())
    place = content.index("\u2581".encode())  # of a piece, so that the file still parses
    content[place + 2] ^= 1
    vocabulary.write_bytes(content)

    with pytest.raises(CheckpointDamaged, match=r"config\.json names the encoder t5:"):
        load_text_encoder(tmp_path)


def in_huggingface_layout(parameters: dict[str, np.ndarray], folder: Path) -> None:
    """Writes TINY as Hugging Face would, in two files, a decoder's tensor among them."""
    tensors = {
        "shared.weight": parameters["embedding"],
        "encoder.final_layer_norm.weight": parameters["final_norm.scale"],
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": parameters[
            "relative_bias"
        ],
        "decoder.final_layer_norm.weight": parameters["final_norm.scale"],
    }
    names = {"q": "query", "k": "key", "v": "value", "o": "output"}
    for theirs, ours in names.items():
        tensors[f"encoder.block.0.layer.0.SelfAttention.{theirs}.weight"] = parameters[
            f"blocks.attention.{ours}"
        ][0].T
    for theirs, ours in {"wi_0": "gate", "wi_1": "linear", "wo": "output"}.items():
        tensors[f"encoder.block.0.layer.1.DenseReluDense.{theirs}.weight"] = parameters[
            f"blocks.mlp.{ours}"
        ][0].T
    for index, ours in enumerate(("attention_norm", "mlp_norm")):
        tensors[f"encoder.block.0.layer.{index}.layer_norm.weight"] = parameters[
            f"blocks.{ours}.scale"
        ][0]
    items = [(name, np.ascontiguousarray(value)) for name, value in tensors.items()]
    save_file(dict(items[:6]), folder / "model-00001-of-00002.safetensors")
    save_file(dict(items[6:]), folder / "model-00002-of-00002.safetensors")
    config = {
        "model_type": "t5",
        "feed_forward_proj": "gated-gelu",
        "vocab_size": TINY.vocabulary_size,
        "d_model": TINY.hidden,
        "num_layers": TINY.layers,
        "num_heads": TINY.heads,
        "d_kv": TINY.head_dim,
        "d_ff": TINY.mlp,
        "relative_attention_num_buckets": TINY.relative_buckets,
    }
    (folder / "config.json").write_text(json.dumps(config))


def test_hugging_face_files_in_shards_load_as_the_same_encoder(
    checkpoint: Path, tmp_path: Path
) -> None:
    ours = load_text_encoder(checkpoint)
    parameters = {n: np.asarray(v) for n, v in parameters_of(ours.encoder).items()}
    in_huggingface_layout(parameters, tmp_path)
    (tmp_path / FILE_NAME).write_bytes(ours.vocabulary.model)

    theirs = load_text_encoder(str(tmp_path))

    assert theirs.fingerprint == ours.fingerprint
    assert theirs.digest != ours.digest
    for name, value in parameters_of(theirs.encoder).items():
        np.testing.assert_array_equal(value, parameters[name])


def test_a_vocabulary_larger_than_the_embedding_is_refused(
    checkpoint: Path, tmp_path: Path
) -> None:
    copied(GOLDENS / "encoder", tmp_path)
    (tmp_path / FILE_NAME).write_bytes((checkpoint / FILE_NAME).read_bytes())

    with pytest.raises(CheckpointMismatch, match="the embedding only 96 rows"):
        load_text_encoder(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feed_forward_proj": "gated-silu"}, "or 'umt5' with 'gated-gelu' or 'relu'"),
        (
            {"feed_forward_proj": "relu"},
            r"missing are .*\.wi\.weight, unknown are .*\.wi_1\.weight",
        ),
        ({"model_type": "bert"}, "holds model_type 'bert'"),
        (
            {"model_type": "umt5"},
            r"missing are encoder\.block\.1\..*bias\.weight, .*unknown are none",
        ),
        ({"num_layers": 4}, r"missing are encoder\.block\.3\..*, unknown are none"),
        ({"num_layers": 2}, r"missing are none, unknown are encoder\.block\.2\.layer"),
        ({"num_layers": 2**30}, "describes 1073741824 layers, and the weights have"),
    ],
)
def test_a_model_of_another_kind_is_refused(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    config = json.loads((copied(GOLDENS / "encoder", tmp_path) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))

    with pytest.raises(CheckpointMismatch, match=message):
        load_text_encoder(tmp_path)
