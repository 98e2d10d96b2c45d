"""Reads T5 v1.1 encoders in Hugging Face's layout: config.json, *.safetensors, spiece.model.

The decoder of a full model is left unread. Flan-T5 has the same shape and loads too.
"""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from services.runtime.checkpoints.documents import config_of, read_object, read_tensors
from services.runtime.checkpoints.errors import CheckpointMismatch, CheckpointNotFound
from services.runtime.checkpoints.integrity import check_finite
from services.runtime.checkpoints.serialization import Checkpoint, parameters_fingerprint
from services.text_encoder.config import T5_XXL, TextEncoderConfig
from services.text_encoder.vocabulary import FILE_NAME

Parameters = dict[str, np.ndarray]
_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", FILE_NAME)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

# Name within an encoder layer: our name, and whether the matrix is stored [out, in].
_LAYER = {
    "layer.0.layer_norm.weight": ("attention_norm.scale", False),
    "layer.0.SelfAttention.q.weight": ("attention.query", True),
    "layer.0.SelfAttention.k.weight": ("attention.key", True),
    "layer.0.SelfAttention.v.weight": ("attention.value", True),
    "layer.0.SelfAttention.o.weight": ("attention.output", True),
    "layer.1.layer_norm.weight": ("mlp_norm.scale", False),
    "layer.1.DenseReluDense.wi_0.weight": ("mlp.gate", True),
    "layer.1.DenseReluDense.wi_1.weight": ("mlp.linear", True),
    "layer.1.DenseReluDense.wo.weight": ("mlp.output", True),
}
_WHOLE = {
    "shared.weight": "embedding",
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": "relative_bias",
    "encoder.final_layer_norm.weight": "final_norm.scale",
}


def is_huggingface(folder: Path) -> bool:
    """Says whether a folder's config.json is one of Hugging Face's."""
    file = folder / "config.json"
    if not file.is_file():
        return False
    try:
        return "model_type" in read_object(file)
    except CheckpointMismatch:
        return False  # whoever reads it next says what is wrong with it


def find_folder(source: str | Path) -> Path:
    """Returns a folder, fetched from the hub if it is an id such as "google/flan-t5-xxl".

    Raises:
        CheckpointNotFound: it is neither, or the hub does not give it.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if not _HUB_ID.fullmatch(str(source)):
        raise CheckpointNotFound(
            f"no text encoder at {source}: expected a folder or a hub id such as google/flan-t5-xxl"
        )
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise CheckpointNotFound(
            f"{source} is no folder, and fetching it from the hub needs the package "
            f"huggingface-hub: install the extra muse[hub]"
        ) from error
    try:
        return Path(snapshot_download(str(source), allow_patterns=list(_FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointNotFound(
            f"{source} is no folder, and the hub does not give it: {error}"
        ) from error


def read_huggingface(
    folder: Path, *, maximum_length: int = TextEncoderConfig.maximum_length
) -> Checkpoint[TextEncoderConfig]:
    """Reads an encoder as a checkpoint of ours, with layers stacked and types as stored.

    T5 itself has no maximum length, Muse's is 128 tokens. The digest is that of the weight files in
    the order of their names; the vocabulary counts in the fingerprint.

    Raises:
        CheckpointNotFound: there are no weights in safetensors.
        CheckpointMismatch: it is no T5 v1.1, or a tensor is missing or of another shape.
        CheckpointDamaged: a value is infinite or NaN.
    """
    config = _config(folder, maximum_length)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointNotFound(
            f"no *.safetensors in {folder}: weights in other formats are not read, "
            f"convert them with transformers' save_pretrained"
        )
    stored: Parameters = {}
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            for block in iter(lambda: content.read(1 << 24), b""):
                digest.update(block)
        stored |= read_tensors(file, prefixes=("shared.weight", "encoder."))
    parameters, vocabulary = _renamed(stored, config, folder), folder / FILE_NAME
    check_finite(folder, parameters)
    extra = vocabulary.read_bytes() if vocabulary.is_file() else b""
    return Checkpoint(
        config=config,
        parameters=parameters,
        fingerprint={"encoder": parameters_fingerprint("t5", parameters, extra)},
        digest=f"sha256:{digest.hexdigest()}",
        record={"preset": "muse-3b"} if config == T5_XXL else {},
        folder=folder,
    )


def _config(folder: Path, maximum_length: int) -> TextEncoderConfig:
    file = folder / "config.json"
    found = read_object(file)
    kind = (found.get("model_type"), found.get("feed_forward_proj"))
    if kind != ("t5", "gated-gelu"):
        raise CheckpointMismatch(
            f"{folder} holds model_type {kind[0]!r} with feed_forward_proj {kind[1]!r}: "
            f"expected 't5' with 'gated-gelu', which is T5 v1.1"
        )
    try:
        fields = {
            "vocabulary_size": found["vocab_size"],
            "hidden": found["d_model"],
            "layers": found["num_layers"],
            "heads": found["num_heads"],
            "head_dim": found["d_kv"],
            "mlp": found["d_ff"],
            "relative_buckets": found["relative_attention_num_buckets"],
            "relative_max_distance": found.get("relative_attention_max_distance", 128),
            "maximum_length": maximum_length,
        }
    except KeyError as error:
        raise CheckpointMismatch(f"{file} is no T5 v1.1: it has no {error}") from error
    return config_of(TextEncoderConfig, fields, file)


def _renamed(stored: Parameters, config: TextEncoderConfig, folder: Path) -> Parameters:
    """Stacks the layers under our names."""
    if "shared.weight" not in stored and "encoder.embed_tokens.weight" in stored:
        stored["shared.weight"] = stored["encoder.embed_tokens.weight"]

    def take(name: str) -> np.ndarray:
        if name not in stored:
            raise CheckpointMismatch(
                f"tensor {name} is missing in {folder}: "
                f"a T5 v1.1 encoder of {config.layers} layers has it"
            )
        return stored.pop(name)

    parameters = {ours: take(theirs) for theirs, ours in _WHOLE.items()}
    for theirs, (ours, transposed) in _LAYER.items():
        turn: Callable[[np.ndarray], np.ndarray] = np.transpose if transposed else np.asarray
        parameters[f"blocks.{ours}"] = np.stack(
            [turn(take(f"encoder.block.{layer}.{theirs}")) for layer in range(config.layers)]
        )
    left = sorted(stored.keys() - {"encoder.embed_tokens.weight"})
    if left:
        raise CheckpointMismatch(
            f"{folder} has tensors that a T5 v1.1 encoder of {config.layers} layers does not: "
            f"{left[:4]}{' ...' if len(left) > 4 else ''}"
        )
    return parameters
