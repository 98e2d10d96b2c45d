"""Checkpoint of a stage: one folder, written by training and read by servers.

    model.safetensors   the parameters, dotted names
    config.json         stage, family, shape, fingerprint, digest of the parameters' file
    training.json       record of the training run
    golden.safetensors  one input of the stage and its output; optional
    ...                 a stage's own files, such as a SentencePiece model

Imports no JAX, so that the command line describes a checkpoint without its start-up time.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import ml_dtypes
import numpy as np

from services.runtime.checkpoints.documents import (
    RECORD_FILE,
    config_of,
    read_object,
    read_record,
    read_tensors,
)
from services.runtime.checkpoints.errors import CheckpointMismatch, CheckpointNotFound
from services.runtime.checkpoints.golden import GOLDEN_FILE
from services.runtime.checkpoints.integrity import check_digest, check_finite, file_digest
from services.runtime.checkpoints.tensors import LazyTensors, Shape, shapes_of, write_tensors

FORMAT_VERSION = 1
OWN_FAMILY = "muse"  # the networks that this project trains
WEIGHTS_FILE = "model.safetensors"
_log = logging.getLogger(__name__)

Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Generic[Config]):
    """A checkpoint read from disk.

    Attributes:
        config: The stage's configuration.
        parameters: Arrays by dotted name, as stored.
        fingerprint: Fingerprints of the codebooks and encoders that the stage provides or needs.
        digest: "sha256:" and 64 hex digits of model.safetensors.
        record: Record of the training run.
        folder: Folder of the checkpoint.
    """

    config: Config
    parameters: dict[str, np.ndarray]
    fingerprint: dict[str, str]
    digest: str
    record: dict[str, Any]
    folder: Path


def codebook_fingerprint(codebook: np.ndarray) -> str:
    """Returns "codebook:" and 16 hex digits of the sha256 of a codebook in float32."""
    content = np.ascontiguousarray(codebook, dtype=np.float32)
    return "codebook:" + hashlib.sha256(content.tobytes()).hexdigest()[:16]


def parameters_fingerprint(prefix: str, parameters: Mapping[str, np.ndarray], *extra: bytes) -> str:
    """Returns the fingerprint of a model: a prefix and 16 hex digits of the sha256 of its content.

    Further content, such as a vocabulary file, counts too.
    """
    digest = hashlib.sha256()
    for name in sorted(parameters):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(parameters[name], dtype=np.float32).tobytes())
    for content in extra:
        digest.update(content)
    return f"{prefix}:{digest.hexdigest()[:16]}"


def round_to_bfloat16(parameters: Mapping[str, np.ndarray]) -> LazyTensors:
    """Returns the arrays with floats rounded to bfloat16, the precision of stored checkpoints."""
    stored: dict[str, Shape] = {
        name: (shape, np.dtype(ml_dtypes.bfloat16 if np.issubdtype(dtype, np.floating) else dtype))
        for name, (shape, dtype) in shapes_of(parameters).items()
    }
    return LazyTensors(
        stored, lambda name: np.asarray(parameters[name]).astype(stored[name][1], copy=False)
    )


def save_checkpoint(
    folder: Path,
    *,
    stage: str,
    config: Any,
    parameters: Mapping[str, np.ndarray],
    fingerprint: Mapping[str, str],
    record: Mapping[str, Any],
    files: Sequence[Path] = (),
    family: str = OWN_FAMILY,
) -> None:
    """Writes a stage's checkpoint.

    `family` names the class of networks whose configuration and parameters these are. `record` has
    the types of JSON. Further files are copied into the folder under their names. A golden example
    of the weights that were there before is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / GOLDEN_FILE).unlink(missing_ok=True)
    digest = write_tensors(folder / WEIGHTS_FILE, parameters)
    header = {
        "format_version": FORMAT_VERSION,
        "stage": stage,
        "family": family,
        "digest": digest,
        "config": asdict(config),
        "fingerprint": dict(fingerprint),
    }
    (folder / "config.json").write_text(json.dumps(header, indent=2) + "\n")
    (folder / RECORD_FILE).write_text(json.dumps(dict(record), indent=2) + "\n")
    for file in files:
        if file.resolve() != (folder / file.name).resolve():
            shutil.copyfile(file, folder / file.name)


def read_header(folder: Path, stage: str) -> dict[str, Any]:
    """Reads the config.json of a stage's checkpoint.

    Raises:
        CheckpointNotFound: the folder or one of its files is missing.
        CheckpointMismatch: the file cannot be read.
    """
    for name in ("config.json", WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise CheckpointNotFound(
                f"no {stage} checkpoint in {folder}: expected the file {name} there; "
                f"train one with `python -m training {stage}` or name another folder"
            )
    return read_object(folder / "config.json")


def load_checkpoint(
    folder: Path, *, stage: str, config_type: type[Config], family: str = OWN_FAMILY
) -> Checkpoint[Config]:
    """Reads a stage's checkpoint of one family.

    Raises:
        CheckpointNotFound: the folder or one of its files is missing.
        CheckpointMismatch: the stage, family or format differs, or a file cannot be read.
        CheckpointDamaged: the weights are not those that were written, or are no numbers.
    """
    header = read_header(folder, stage)
    try:
        found = (header["format_version"], header["stage"])
        shape, fingerprint = dict(header["config"]), dict(header["fingerprint"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointMismatch(f"{folder}/config.json cannot be read: {error!r}") from error
    if not all(isinstance(name, str) for name in fingerprint.values()):
        raise CheckpointMismatch(
            f"{folder}/config.json: expected a text for each fingerprint, got {fingerprint}"
        )
    if found != (FORMAT_VERSION, stage):
        raise CheckpointMismatch(
            f"{folder} holds stage {found[1]!r} in format {found[0]}: "
            f"expected stage {stage!r} in format {FORMAT_VERSION}"
        )
    if header.get("family", OWN_FAMILY) != family:
        raise CheckpointMismatch(
            f"{folder} holds a {stage} of the family {header['family']!r}: expected {family!r}, "
            "the one that can be used here"
        )
    config = config_of(config_type, shape, folder / "config.json")
    weights = folder / WEIGHTS_FILE
    digest = file_digest(weights)
    if "digest" in header:
        check_digest(weights, expected=header["digest"], got=digest)
    else:
        _log.warning(
            "%s/config.json has no digest of the weights, so not every damage is noticed: "
            "export the checkpoint again",
            folder,
        )
    parameters = read_tensors(weights)
    check_finite(weights, parameters)
    return Checkpoint(
        config=config,
        parameters=parameters,
        fingerprint=fingerprint,
        digest=digest,
        record=read_record(folder),
        folder=folder,
    )
