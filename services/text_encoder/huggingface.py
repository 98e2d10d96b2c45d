"""Reads T5 encoders in Hugging Face's layout: config.json and *.safetensors.

T5 1.0, T5 v1.1, Flan-T5 and UMT5, of any size; the decoder of a full model is left unread.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from services.runtime.checkpoints.documents import config_of, read_object, read_tensors
from services.runtime.checkpoints.errors import CheckpointMismatch, CheckpointNotFound
from services.runtime.checkpoints.integrity import check_finite
from services.runtime.checkpoints.serialization import Checkpoint, parameters_fingerprint
from services.text_encoder.config import T5_XXL, TextEncoderConfig
from services.text_encoder.folders import KINDS
from services.text_encoder.vocabulary_files import vocabulary_model

Parameters = dict[str, np.ndarray]
INDEX_FILE = "model.safetensors.index.json"
LISTED = 10  # names of tensors in a message
GATED = {"gated-gelu": True, "relu": False}  # by feed_forward_proj

# Name within an encoder layer, and ours; matrices are stored [out, in].
_LAYER = {
    "layer.0.layer_norm.weight": "attention_norm.scale",
    "layer.0.SelfAttention.q.weight": "attention.query",
    "layer.0.SelfAttention.k.weight": "attention.key",
    "layer.0.SelfAttention.v.weight": "attention.value",
    "layer.0.SelfAttention.o.weight": "attention.output",
    "layer.1.layer_norm.weight": "mlp_norm.scale",
    "layer.1.DenseReluDense.wo.weight": "mlp.output",
}
_GATED_MLP = {
    "layer.1.DenseReluDense.wi_0.weight": "mlp.gate",
    "layer.1.DenseReluDense.wi_1.weight": "mlp.linear",
}
_RELU_MLP = {"layer.1.DenseReluDense.wi.weight": "mlp.linear"}
_WHOLE = {"shared.weight": "embedding", "encoder.final_layer_norm.weight": "final_norm.scale"}
_BIAS = "encoder.block.{layer}.layer.0.SelfAttention.relative_attention_bias.weight"


def is_huggingface(folder: Path) -> bool:
    """Says whether a folder's config.json is one of Hugging Face's."""
    file = folder / "config.json"
    if not file.is_file():
        return False
    try:
        return "model_type" in read_object(file)
    except CheckpointMismatch:
        return False  # whoever reads it next says what is wrong with it


def read_huggingface(
    folder: Path, *, maximum_length: int = TextEncoderConfig.maximum_length
) -> Checkpoint[TextEncoderConfig]:
    """Reads an encoder as a checkpoint of ours, with layers stacked and types as stored.

    T5 itself has no maximum length, Muse's is 128 tokens. The digest is that of the weight files in
    the order of their names; the vocabulary counts in the fingerprint.

    Raises:
        CheckpointNotFound: there are no weights in safetensors, or not all of them.
        CheckpointMismatch: it is no T5, or a tensor is missing, there twice or of another shape.
        CheckpointDamaged: a value is infinite or NaN.
    """
    config = _config(folder, maximum_length)
    stored: Parameters = {}
    digest = hashlib.sha256()
    for file in _weight_files(folder):
        with file.open("rb") as content:
            for block in iter(lambda: content.read(1 << 24), b""):
                digest.update(block)
        tensors = read_tensors(file, prefixes=("shared.weight", "encoder."))
        twice = sorted(stored.keys() & tensors.keys())
        if twice:
            raise CheckpointMismatch(
                f"{folder}: {twice[0]} is in {file.name} and in another file: expected one variant "
                f"of the weights, or {INDEX_FILE} that names its files; move the others away"
            )
        stored |= tensors
    parameters = _renamed(stored, config, folder)
    check_finite(folder, parameters)
    extra = vocabulary_model(folder) or b""
    return Checkpoint(
        config=config,
        parameters=parameters,
        fingerprint={"encoder": parameters_fingerprint("t5", parameters, extra)},
        digest=f"sha256:{digest.hexdigest()}",
        record={"preset": "muse-3b"} if config == T5_XXL else {},
        folder=folder,
    )


def _weight_files(folder: Path) -> list[Path]:
    """Returns the files of one variant: those of the index, model.safetensors, or all there are."""
    index, single = folder / INDEX_FILE, folder / "model.safetensors"
    if index.is_file():
        names = read_object(index).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(each, str) for each in names.values()):
            raise CheckpointMismatch(
                f"{index}: expected a weight_map from tensors to files, got {type(names).__name__}"
            )
        files = sorted({folder / Path(name).name for name in names.values()})
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise CheckpointNotFound(
                f"{folder} lacks {len(missing)} of the {len(files)} files that {INDEX_FILE} names: "
                f"{', '.join(missing[:LISTED])}; fetch them again"
            )
        return files
    files = [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointNotFound(
            f"no *.safetensors in {folder}: weights in other formats are not read, "
            f"convert them with transformers' save_pretrained"
        )
    return files


def _config(folder: Path, maximum_length: int) -> TextEncoderConfig:
    file = folder / "config.json"
    found = read_object(file)
    kind, mlp = found.get("model_type"), found.get("feed_forward_proj", "relu")
    if kind not in KINDS or not isinstance(mlp, str) or mlp not in GATED:
        raise CheckpointMismatch(
            f"{folder} holds model_type {kind!r} with feed_forward_proj {mlp!r}: expected "
            f"{' or '.join(map(repr, KINDS))} with {' or '.join(map(repr, GATED))}"
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
            "gated": GATED[mlp],
            "bias_in_each_layer": kind == "umt5",
        }
    except KeyError as error:
        raise CheckpointMismatch(f"{file} is no T5: it has no {error}") from error
    return config_of(TextEncoderConfig, fields, file)


def _renamed(stored: Parameters, config: TextEncoderConfig, folder: Path) -> Parameters:
    """Stacks the layers under our names."""
    tied = stored.pop("encoder.embed_tokens.weight", None)
    if tied is not None:
        stored.setdefault("shared.weight", tied)
    if config.layers > len(stored):
        raise CheckpointMismatch(
            f"{folder}/config.json describes {config.layers} layers, and the weights have "
            f"{len(stored)} tensors in all: the files are of two encoders, fetch them again"
        )
    layers = _LAYER | (_GATED_MLP if config.gated else _RELU_MLP)
    biases = list(_bias_names(config))
    expected = {
        *_WHOLE,
        *biases,
        *(f"encoder.block.{layer}.{name}" for layer in range(config.layers) for name in layers),
    }
    missing, unknown = sorted(expected - stored.keys()), sorted(stored.keys() - expected)
    if missing or unknown:
        raise CheckpointMismatch(
            f"{folder} holds another network than the encoder of {config.layers} layers that its "
            f"config.json describes: missing are {_listed(missing)}, unknown are {_listed(unknown)}"
        )
    try:
        parameters = {ours: stored[theirs] for theirs, ours in _WHOLE.items()}
        parameters["relative_bias"] = np.concatenate([stored[name] for name in biases])
        for theirs, ours in layers.items():
            each = [stored[f"encoder.block.{layer}.{theirs}"] for layer in range(config.layers)]
            parameters[f"blocks.{ours}"] = np.stack([tensor.T for tensor in each])
    except ValueError as error:
        raise CheckpointMismatch(
            f"{folder}: layers have tensors of different shapes: {error}"
        ) from error
    return parameters


def _bias_names(config: TextEncoderConfig) -> Iterator[str]:
    for layer in range(config.layers if config.bias_in_each_layer else 1):
        yield _BIAS.format(layer=layer)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "") or "none"
