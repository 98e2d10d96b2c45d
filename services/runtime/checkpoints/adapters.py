"""Low-rank adapter of a checkpoint: one small folder, written by training.

    adapter.safetensors   the factors of each adapted matrix X.kernel: X.lora_a and X.lora_b
    config.json           stage, rank, alpha, digests of the factors' file and of its checkpoint
    training.json         record of the training run

An adapted matrix is kernel + alpha / rank * lora_a @ lora_b. Imports no JAX.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from services.runtime.checkpoints.documents import (
    RECORD_FILE,
    config_of,
    read_object,
    read_record,
    read_tensors,
)
from services.runtime.checkpoints.errors import CheckpointMismatch, CheckpointNotFound
from services.runtime.checkpoints.integrity import check_digest, check_finite, file_digest
from services.runtime.checkpoints.serialization import Checkpoint
from services.runtime.checkpoints.tensors import write_tensors

FORMAT_VERSION = 1
WEIGHTS_FILE = "adapter.safetensors"
KERNEL, FACTOR_A, FACTOR_B = ".kernel", ".lora_a", ".lora_b"


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """Size and weight of an adapter's products.

    Attributes:
        rank: Columns of each A and rows of each B.
        alpha: The product of A and B counts alpha / rank times.
    """

    rank: int
    alpha: float = 16.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"an adapter's rank must be at least 1, got {self.rank}")
        if not 0 < self.alpha < math.inf:  # NaN is in no range
            raise ValueError(f"an adapter's alpha must be more than 0, got {self.alpha:g}")

    @property
    def scale(self) -> float:
        """Weight of the product of A and B."""
        return self.alpha / self.rank


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter read from disk.

    Attributes:
        stage: "base" or "superres".
        low_rank: Size and weight of its products.
        checkpoint: Digest of the checkpoint that it belongs to, as `Checkpoint.digest`.
        factors: A and B of each adapted matrix by the name of the matrix, such as
            "blocks.mlp.expand.kernel".
        digest: "sha256:" and 64 hex digits of adapter.safetensors.
        record: Record of the training run.
        folder: Folder of the adapter.
    """

    stage: str
    low_rank: LowRank
    checkpoint: str
    factors: Mapping[str, tuple[np.ndarray, np.ndarray]]
    digest: str
    record: dict[str, Any]
    folder: Path

    def adapted(
        self, name: str, kernel: Float[np.ndarray, "*L D M"]
    ) -> Float[np.ndarray, "*L D M"]:
        """Returns a matrix, or a stack of a layer's matrices each, plus its product, in float32."""
        a, b = (factor.astype(np.float32) for factor in self.factors[name])
        return kernel.astype(np.float32) + np.float32(self.low_rank.scale) * (a @ b)


def save_adapter(
    folder: Path,
    *,
    stage: str,
    low_rank: LowRank,
    checkpoint: str,
    parameters: Mapping[str, np.ndarray],
    record: Mapping[str, Any],
) -> None:
    """Writes an adapter.

    Args:
        folder: Where to; created if missing.
        stage: "base" or "superres".
        low_rank: Size and weight of its products.
        checkpoint: Digest of the checkpoint that it belongs to.
        parameters: The factors by name, such as "blocks.mlp.expand.lora_a".
        record: Record of the training run, of the types of JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest = write_tensors(folder / WEIGHTS_FILE, parameters)
    header = {
        "format_version": FORMAT_VERSION,
        "digest": digest,
        "adapter_of": {"stage": stage, "checkpoint": checkpoint},
        "rank": low_rank.rank,
        "alpha": low_rank.alpha,
    }
    (folder / "config.json").write_text(json.dumps(header, indent=2) + "\n")
    (folder / RECORD_FILE).write_text(json.dumps(dict(record), indent=2) + "\n")


def load_adapter(folder: Path) -> Adapter:
    """Reads an adapter.

    Raises:
        CheckpointNotFound: the folder or one of its files is missing.
        CheckpointMismatch: a file cannot be read, is of another format, or lacks a factor.
        CheckpointDamaged: the factors are not those that were written, or are no numbers.
    """
    weights = folder / WEIGHTS_FILE
    for file in (folder / "config.json", weights):
        if not file.is_file():
            raise CheckpointNotFound(
                f"no adapter in {folder}: expected the file {file.name} there; "
                "`python -m training base --adapter-rank 8` makes one in OUT/adapter"
            )
    header = read_object(folder / "config.json")
    try:
        version, of = header["format_version"], header["adapter_of"]
        stage, checkpoint, digest = str(of["stage"]), str(of["checkpoint"]), str(header["digest"])
        size = {"rank": header["rank"], "alpha": header["alpha"]}
    except (KeyError, TypeError) as error:
        raise CheckpointMismatch(
            f"{folder}/config.json does not describe an adapter: {error!r}"
        ) from error
    if version != FORMAT_VERSION:
        raise CheckpointMismatch(
            f"{folder} holds an adapter in format {version}: expected format {FORMAT_VERSION}"
        )
    low_rank = config_of(LowRank, size, folder / "config.json")
    check_digest(weights, expected=digest, got=file_digest(weights))
    parameters = read_tensors(weights)
    check_finite(weights, parameters)
    return Adapter(
        stage=stage,
        low_rank=low_rank,
        checkpoint=checkpoint,
        factors=_paired(weights, parameters, low_rank.rank),
        digest=digest,
        record=read_record(folder),
        folder=folder,
    )


def check_belongs(adapter: Adapter, checkpoint: Checkpoint[Any]) -> None:
    """Checks that an adapter was trained for a checkpoint.

    Raises:
        CheckpointMismatch: it was trained for another one, or its shapes are not those of this one.
    """
    if adapter.checkpoint != checkpoint.digest:
        raise CheckpointMismatch(
            f"{adapter.folder} belongs to the {adapter.stage} of digest {adapter.checkpoint}, "
            f"{checkpoint.folder} has {checkpoint.digest}: give the checkpoint that the adapter "
            "was trained on"
        )
    for name, (a, b) in adapter.factors.items():
        shape = (*a.shape[:-1], b.shape[-1])
        found = checkpoint.parameters[name].shape if name in checkpoint.parameters else "none"
        if found != shape:
            raise CheckpointMismatch(
                f"{adapter.folder} adapts {name} of shape {shape}: {checkpoint.folder} has {found}"
            )


def _paired(
    file: Path, parameters: Mapping[str, np.ndarray], rank: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns A and B by the name of the matrix that they adapt."""
    adapted = {name.removesuffix(FACTOR_A) for name in parameters if name.endswith(FACTOR_A)}
    expected = {name + ending for name in adapted for ending in (FACTOR_A, FACTOR_B)}
    if not adapted or expected != parameters.keys():
        raise CheckpointMismatch(
            f"{file} is no adapter: expected pairs of X{FACTOR_A} and X{FACTOR_B}, got "
            f"{sorted(expected ^ parameters.keys())[:4] or 'nothing'}"
        )
    factors = {
        name + KERNEL: (parameters[name + FACTOR_A], parameters[name + FACTOR_B])
        for name in sorted(adapted)
    }
    for name, (a, b) in factors.items():
        if a.ndim < 2 or a.ndim != b.ndim or (a.shape[-1], b.shape[-2]) != (rank, rank):
            raise CheckpointMismatch(
                f"{file}: the factors of {name} have shapes {a.shape} and {b.shape}: expected "
                f"rank {rank}, as config.json says"
            )
    return factors
