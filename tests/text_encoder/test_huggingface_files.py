"""Which files of a folder or a hub id are read, and what is wrong with others."""

import base64
import io
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from services.runtime.checkpoints.errors import CheckpointMismatch, CheckpointNotFound
from services.text_encoder import folders
from services.text_encoder.huggingface import INDEX_FILE, read_huggingface
from services.text_encoder.loading import load_text_encoder
from services.text_encoder.vocabulary import FILE_NAME, Vocabulary
from services.text_encoder.vocabulary_files import TOKENIZER_FILE, vocabulary_model
from tests.text_encoder.huggingface_folders import drawn, write_encoder

TEXTS = (
    "a red fox",
    "Two  keys\u00a0and a sun",
    "",
    "\uff46ull-width, \u00bd and \u732b",
    "fox fox",
)


def halves() -> list[dict[str, np.ndarray]]:
    """The weights of an encoder in two parts."""
    items = list(drawn("t5_1_0").items())
    return [dict(items[:9]), dict(items[9:])]


def write_index(folder: Path, files: dict[str, list[str]]) -> None:
    weight_map = {tensor: file for file, tensors in files.items() for tensor in tensors}
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_of_two_variants_the_index_names_the_files(tmp_path: Path) -> None:
    first, second = halves()
    whole = read_huggingface(write_encoder(tmp_path / "whole"))
    others = {name: value + 1 for name, value in drawn("t5_1_0").items()}
    folder = write_encoder(
        tmp_path / "both",
        files={"a.safetensors": first, "b.safetensors": second, "z.safetensors": others},
    )
    with pytest.raises(CheckpointMismatch, match=r"is in z\.safetensors and in another file"):
        read_huggingface(folder)

    write_index(folder, {"a.safetensors": list(first), "b.safetensors": list(second)})
    assert read_huggingface(folder).fingerprint == whole.fingerprint


def test_beside_model_safetensors_other_variants_are_not_read(tmp_path: Path) -> None:
    whole = read_huggingface(write_encoder(tmp_path / "whole"))
    others = {name: value + 1 for name, value in drawn("t5_1_0").items()}
    files = {"model.safetensors": drawn("t5_1_0"), "model.fp16.safetensors": others}
    assert read_huggingface(write_encoder(tmp_path / "both", files=files)).digest == whole.digest


def test_a_file_that_the_index_names_and_that_is_not_there_is_listed(tmp_path: Path) -> None:
    first, second = halves()
    folder = write_encoder(tmp_path, files={"a.safetensors": first})
    write_index(folder, {"a.safetensors": list(first), "b.safetensors": list(second)})
    with pytest.raises(CheckpointNotFound, match=r"lacks 1 of the 2 files .* names: b\.safet"):
        read_huggingface(folder)
    (folder / INDEX_FILE).write_text('{"weight_map": 3}')
    with pytest.raises(CheckpointMismatch, match="expected a weight_map from tensors to files"):
        read_huggingface(folder)


def test_float8_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, files={})
    header = {"shared.weight": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + b"\1\2\3\4"
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(
        CheckpointMismatch, match=r"shared\.weight is of the type F8_E4M3, expected"
    ):
        read_huggingface(folder)


def test_a_layer_of_another_shape_is_refused(tmp_path: Path) -> None:
    tensors = drawn("t5_1_0")
    name = "encoder.block.1.layer.0.SelfAttention.q.weight"
    folder = write_encoder(
        tmp_path, files={"model.safetensors": {**tensors, name: tensors[name][:4]}}
    )
    with pytest.raises(CheckpointMismatch, match="layers have tensors of different shapes"):
        read_huggingface(folder)


@pytest.fixture(scope="module")
def unigram() -> bytes:
    """A small SentencePiece model of T5's kind."""
    sentences = (
        f"{count} {thing} on a {colour} background"
        for count in ("one", "two", "three")
        for thing in ("foxes", "keys", "suns", "cars")
        for colour in ("red", "green", "blue")
    )
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*sentences, *TEXTS]),
        model_writer=model,
        model_type="unigram",
        vocab_size=90,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def tokenizer_json(model: bytes) -> dict[str, Any]:
    """What transformers 5 saves of a SentencePiece model: pieces, sentinels, characters."""
    proto = ModelProto.FromString(model)
    table = base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()
    sentinels = [[f"<extra_id_{number}>", 0.0] for number in reversed(range(100))]
    return {
        "version": "1.0",
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": table},
        "model": {
            "type": "Unigram",
            "unk_id": 2,
            "vocab": [[each.piece, each.score] for each in proto.pieces] + sentinels,
            "byte_fallback": False,
        },
    }


def test_a_folder_with_tokenizer_json_alone_has_the_ids_of_spiece_model(
    unigram: bytes, tmp_path: Path
) -> None:
    (tmp_path / TOKENIZER_FILE).write_text(json.dumps(tokenizer_json(unigram)))
    made = vocabulary_model(tmp_path)
    assert made is not None
    ours, original = Vocabulary(made), Vocabulary(unigram)
    assert ours.size == original.size
    for text in TEXTS:
        assert ours.encode(text) == original.encode(text)
    (tmp_path / FILE_NAME).write_bytes(unigram)
    assert vocabulary_model(tmp_path) == unigram


def test_what_transformers_saves_has_its_ids_where_it_is_installed(
    unigram: bytes, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    proto = ModelProto.FromString(unigram)
    pieces = [(each.piece, each.score) for each in proto.pieces]
    sentinels = [(f"<extra_id_{number}>", 0.0) for number in reversed(range(100))]
    tokenizer = transformers.T5Tokenizer(
        vocab=pieces + sentinels,
        _spm_precompiled_charsmap=proto.normalizer_spec.precompiled_charsmap,
    )
    tokenizer.save_pretrained(tmp_path)
    assert not (tmp_path / FILE_NAME).exists()
    made = vocabulary_model(tmp_path)
    assert made is not None
    for text in TEXTS:
        assert Vocabulary(made).encode(text) == tokenizer(text).input_ids


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content.pop("model"),
        lambda content: content["model"].update(type="BPE"),
        lambda content: content["model"].update(vocab=[["a"]]),
        lambda content: content.update(normalizer={"type": "Lowercase"}),
        lambda content: content.update(
            normalizer={"type": "Precompiled", "precompiled_charsmap": "?"}
        ),
    ],
)
def test_the_tokenizer_json_of_another_model_is_refused(
    spoil: Callable[[dict[str, Any]], Any], unigram: bytes, tmp_path: Path
) -> None:
    content = tokenizer_json(unigram)
    spoil(content)
    (tmp_path / TOKENIZER_FILE).write_text(json.dumps(content))
    with pytest.raises(CheckpointMismatch, match=r"is no vocabulary of a T5.* put T5's spiece"):
        vocabulary_model(tmp_path)


def pipeline(folder: Path, unigram: bytes) -> Path:
    """A pipeline in diffusers' layout: CLIP as its first text encoder, a T5 as its second."""
    write_encoder(folder / "text_encoder_2", files={"model.safetensors": drawn("t5_1_0")})
    clip = folder / "text_encoder"
    clip.mkdir()
    (clip / "config.json").write_text('{"model_type": "clip_text_model"}')
    (folder / "model_index.json").write_text("{}")
    (folder / "tokenizer_2").mkdir()
    (folder / "tokenizer_2" / FILE_NAME).write_bytes(unigram)
    return folder


def test_the_t5_of_a_pipeline_of_diffusers_is_found(unigram: bytes, tmp_path: Path) -> None:
    folder = pipeline(tmp_path, unigram)
    assert folders.find_folder(folder) == folder / "text_encoder_2"
    assert vocabulary_model(folder / "text_encoder_2") == unigram
    with pytest.raises(CheckpointMismatch, match=r"the vocabulary in .*text_encoder_2 has \d+ ids"):
        load_text_encoder(folder)  # the golden's embedding has 96 rows

    (folder / "text_encoder_2" / "config.json").write_text('{"model_type": "clip_text_model"}')
    with pytest.raises(CheckpointMismatch, match="text_encoder, text_encoder_2: expected one"):
        folders.find_folder(folder)


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("google/flan-t5-xxl", ("google/flan-t5-xxl", None, "spiece.model")),
        ("google/flan-t5-xxl@v1", ("google/flan-t5-xxl", "v1", "tokenizer.json")),
        ("google/flan-t5-xxl@refs/pr/3", ("google/flan-t5-xxl", "refs/pr/3", "config.json")),
        ("a/flux/text_encoder_2@main", ("a/flux", "main", "tokenizer_2/spiece.model")),
    ],
)
def test_a_hub_id_has_a_folder_and_a_revision(
    source: str,
    asked: tuple[str, str | None, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        calls.append((name, revision))
        assert asked[2] in allow_patterns
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    place = "text_encoder_2" if source.count("/") == 2 and "@main" in source else ""
    assert folders.find_folder(source) == tmp_path / place
    assert calls == [asked[:2]]


def test_what_the_hub_says_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import RevisionNotFoundError

    def snapshot_download(*_: object, **__: object) -> str:
        response: Any = types.SimpleNamespace(headers={}, request=None)
        raise RevisionNotFoundError("404\nRevision Not Found", response=response)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(CheckpointNotFound, match="the hub does not give it: 404 Rev") as caught:
        folders.find_folder("google/flan-t5-xxl@nothing")
    assert "\n" not in str(caught.value)


def test_without_the_hub_s_client_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointNotFound, match=r"install the extra muse\[hub\]"):
        folders.find_folder("google/flan-t5-xxl")
