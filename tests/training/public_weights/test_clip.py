"""CLIP's text encoder: the ids of transformers' vocabulary, and the embeddings of its network."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from services.nn.parameters import with_parameters
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.text_encoder.clip_vocabulary import ClipVocabulary
from services.text_encoder.families import build_text_encoder
from services.text_encoder.vocabulary import PromptTooLong
from tests.training.public_weights.amused import VOCABULARY, golden, write_text_encoder
from training.public_weights.clip import PublishedClip, read_clip

KINDS = ("clip", "clip_quick")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> PublishedClip:
    folder = tmp_path_factory.mktemp("clip")
    return read_clip(write_text_encoder(folder / "text_encoder"), VOCABULARY)


def vocabulary_of(clip: PublishedClip) -> ClipVocabulary:
    return ClipVocabulary(clip.vocabulary, clip.config)


@pytest.mark.parametrize("name", KINDS)
def test_embeddings_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    answers = golden(name)
    read = read_clip(write_text_encoder(tmp_path, name), VOCABULARY)
    encoder = with_parameters(
        lambda: build_text_encoder(read.config, dtype=jnp.float32, param_dtype=jnp.float32),
        read.parameters,
    )
    expected = answers["embeddings"]
    ids = answers["ids"][: len(expected)]

    found = jax.jit(encoder.__call__)(ids, ids != 0)

    assert found.shape == (3, 78, 20)  # 77 positions and the pooled vector
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_texts_have_the_ids_of_transformers(clip: PublishedClip) -> None:
    answers, vocabulary = golden("clip"), vocabulary_of(clip)
    for text, ids in zip(json.loads(str(answers["texts"])), answers["ids"], strict=True):
        assert vocabulary.encode(text) == ids.tolist(), text


def test_tokenizer_json_is_the_same_vocabulary(clip: PublishedClip, tmp_path: Path) -> None:
    ids = json.loads((VOCABULARY / "vocab.json").read_text("utf-8"))
    merges = (VOCABULARY / "merges.txt").read_text("utf-8").splitlines()[1:]
    whole = {"model": {"type": "BPE", "vocab": ids, "merges": [each.split() for each in merges]}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    padding: dict[str, Any] = {"pad_token": {"content": "!", "lstrip": False}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(padding))

    read = read_clip(write_text_encoder(tmp_path / "text_encoder"), tmp_path)

    assert (read.config, read.vocabulary) == (clip.config, clip.vocabulary)


def test_a_text_has_all_positions_or_is_too_long(clip: PublishedClip) -> None:
    vocabulary = vocabulary_of(clip)
    assert len(vocabulary.encode("")) == len(vocabulary.encode("7" * 75)) == 77
    assert len(vocabulary.encode("zq" * 38)) == 78
    with pytest.raises(PromptTooLong, match=r"has \d{5,} tokens.*at most 77 fit"):
        vocabulary.encode("7" * 1_000_000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "t5"}, "expected model_type 'clip_text_model', got 't5'"),
        ({"hidden_act": "relu"}, "expected hidden_act 'quick_gelu' or 'gelu', got 'relu'"),
        ({"projection_dim": 12}, "expected projection_dim 20"),
        ({"eos_token_id": 5}, "expected eos_token_id 658"),
        ({"num_attention_heads": 3}, "must be a multiple of heads"),
        ({"num_hidden_layers": 2}, r"16 \(text_model.encoder.layers.2.*\) are unknown"),
        ({"intermediate_size": 30}, "another shape"),
        ({"vocab_size": 600}, "ids must be less than 600"),
    ],
)
def test_another_network_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = write_text_encoder(tmp_path, **changes)
    with pytest.raises(CheckpointMismatch, match=message):
        read_clip(folder, VOCABULARY)


@pytest.mark.parametrize("content", ["", "[]", '{"a": "b"}', '{"a": 0}', '{"<|endoftext|>": 1}'])
def test_another_vocabulary_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(content)
    (tmp_path / "merges.txt").write_text("a b\n")
    with pytest.raises(CheckpointMismatch, match=r"vocab"):
        read_clip(write_text_encoder(tmp_path / "text_encoder"), tmp_path)
