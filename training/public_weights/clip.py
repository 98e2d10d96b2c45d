"""CLIP's text encoder as transformers writes it: configuration, vocabulary, names of its tensors.

Source: huggingface/transformers, models/clip/modeling_clip.py and tokenization_clip.py.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from services.runtime.checkpoints.documents import config_of, read_object
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.text_encoder.clip_config import ClipTextConfig
from services.text_encoder.clip_vocabulary import clip_vocabulary_file
from services.text_encoder.families import build_text_encoder
from training.public_weights.described import check_fields
from training.public_weights.layouts import file_in, read_weights
from training.public_weights.renaming import renamed

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
LEGACY_END = 2  # eos_token_id of files from before it was used
# Field of config.json, ours, and its default in transformers.
FIELDS = (
    ("vocab_size", "vocabulary_size", 49_408),
    ("hidden_size", "hidden", 512),
    ("num_hidden_layers", "layers", 12),
    ("num_attention_heads", "heads", 8),
    ("intermediate_size", "mlp", 2048),
    ("max_position_embeddings", "maximum_length", 77),
)
GELUS = {"quick_gelu": True, "gelu": False}
OF_TRANSFORMERS = "text_model.embeddings.position_ids"  # a buffer that old files have


class PublishedClip(NamedTuple):
    """A CLIP's text encoder as it was read.

    Attributes:
        config: Its configuration.
        parameters: Of a `ClipTextEncoder`, by dotted path.
        vocabulary: As `clip_vocabulary_file` makes it.
        file: That the weights were in.
    """

    config: ClipTextConfig
    parameters: Mapping[str, np.ndarray]
    vocabulary: bytes
    file: Path


class _Vocabulary(NamedTuple):
    ids: Mapping[str, int]
    merges: list[tuple[str, str]]
    special: Mapping[str, int]


def read_clip(folder: Path, vocabulary_folder: Path) -> PublishedClip:
    """Reads a CLIP's text encoder.

    Args:
        folder: With config.json and the weights of transformers' `CLIPTextModelWithProjection`.
        vocabulary_folder: With vocab.json and merges.txt, or tokenizer.json, and the names of the
            special tokens.

    Raises:
        CheckpointError: it is missing or damaged, or another network.
    """
    vocabulary = _read_vocabulary(vocabulary_folder)
    config = _config(read_object(folder / "config.json"), vocabulary, folder / "config.json")
    file = file_in(folder, WEIGHTS)
    tensors = dict(read_weights(file))
    tensors.pop(OF_TRANSFORMERS, None)
    build = partial(build_text_encoder, config, dtype=jnp.float32, param_dtype=jnp.float32)
    return PublishedClip(
        config=config,
        parameters=renamed(tensors, NAMES, build, file, turns={}),
        vocabulary=clip_vocabulary_file(vocabulary.ids, vocabulary.merges),
        file=file,
    )


def _config(fields: Mapping[str, Any], vocabulary: _Vocabulary, file: Path) -> ClipTextConfig:
    check_fields(fields, {"model_type": "clip_text_model", "layer_norm_eps": 1e-5}, file)
    gelu, end = fields.get("hidden_act", "quick_gelu"), fields.get("eos_token_id", LEGACY_END)
    if gelu not in GELUS:
        raise CheckpointMismatch(
            f"{file}: expected hidden_act {' or '.join(map(repr, GELUS))}, got {gelu!r}"
        )
    found = {ours: fields.get(theirs, default) for theirs, ours, default in FIELDS}
    config = config_of(
        ClipTextConfig, {**found, "quick_gelu": GELUS[gelu], **vocabulary.special}, file
    )
    if end not in (LEGACY_END, config.end_id):
        raise CheckpointMismatch(
            f"{file}: expected eos_token_id {config.end_id}, as the vocabulary says, got {end!r}"
        )
    projected = fields.get("projection_dim", 512)
    if projected != config.hidden:
        raise CheckpointMismatch(
            f"{file}: expected projection_dim {config.hidden}, as hidden_size is, got "
            f"{projected!r}: the pooled vector travels as one more row of the embedding"
        )
    return config


def _read_vocabulary(folder: Path) -> _Vocabulary:
    whole = folder / "tokenizer.json"
    try:
        if (folder / "vocab.json").is_file():
            ids = read_object(folder / "vocab.json")
            lines = (folder / "merges.txt").read_text("utf-8").splitlines()
            pairs: list[Any] = [each for each in lines if each and not each.startswith("#version")]
        else:
            model = read_object(whole)["model"]
            ids, pairs = model["vocab"], model["merges"]
        merges = [_pair(each) for each in pairs]
        return _Vocabulary(ids, merges, _special_ids(folder, ids))
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise CheckpointMismatch(
            f"{folder} has no vocabulary of a CLIP: expected vocab.json and merges.txt, or "
            f"tokenizer.json, got {error!r}"
        ) from error


def _pair(merge: str | list[str]) -> tuple[str, str]:
    left, right = merge.split() if isinstance(merge, str) else merge
    return left, right


def _special_ids(folder: Path, ids: Mapping[str, int]) -> dict[str, int]:
    """Returns the ids of begin, end and padding as fields of `ClipTextConfig`."""
    named: dict[str, Any] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            named |= read_object(folder / name)

    def number(role: str, default: str) -> int:
        token = named.get(role, default)
        return ids[token["content"] if isinstance(token, dict) else token]

    end = number("eos_token", "<|endoftext|>")
    if end != max(ids.values()):
        raise ValueError(f"{end} as the id of the end, which is not the highest")
    return {
        "begin_id": number("bos_token", "<|startoftext|>"),
        "end_id": end,
        "padding_id": number("pad_token", "<|endoftext|>"),
    }


_LAYER = "text_model.encoder.layers.{layer}"
_PARTS = {
    "attention_norm.norm": ("layer_norm1",),
    "project": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "output": ("self_attn.out_proj",),
    "mlp_norm.norm": ("layer_norm2",),
    "expand": ("mlp.fc1",),
    "contract": ("mlp.fc2",),
}
NAMES = {
    "tokens": "text_model.embeddings.token_embedding.weight",
    "positions": "text_model.embeddings.position_embedding.weight",
    "final_norm.norm.scale": "text_model.final_layer_norm.weight",
    "final_norm.norm.bias": "text_model.final_layer_norm.bias",
    "projection.kernel": "text_projection.weight",
} | {
    f"blocks.{ours}.{kind}": " ".join(f"{_LAYER}.{each}.{ending}" for each in theirs)
    for ours, theirs in _PARTS.items()
    for kind, ending in (
        ("scale" if ours.endswith("norm") else "kernel", "weight"),
        ("bias", "bias"),
    )
}
