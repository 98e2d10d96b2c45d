"""Merges an adapter into the checkpoint that it belongs to: W + alpha / rank * A B.

The merged matrices are stored in float32. The checkpoint's own numbers are of bfloat16, and a
change of less than half their spacing would be rounded away: of a small adapter all of it.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from services.base.families import CONFIG_TYPES as BASE_TYPES
from services.base.families import AnyBaseConfig, family_of
from services.runtime.checkpoints.adapters import check_belongs, load_adapter
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.runtime.checkpoints.families import load_family
from services.runtime.checkpoints.golden import GOLDEN_FILE
from services.runtime.checkpoints.serialization import (
    OWN_FAMILY,
    WEIGHTS_FILE,
    save_checkpoint,
)
from services.runtime.checkpoints.tensors import LazyTensors
from services.superres.config import SuperresConfig

CONFIG_TYPES: Mapping[str, Mapping[str, type[AnyBaseConfig | SuperresConfig]]] = {
    "base": BASE_TYPES,
    "superres": {OWN_FAMILY: SuperresConfig},
}
# Written anew, or an answer of the weights that were there; other files are copied.
NOT_COPIED = ("config.json", WEIGHTS_FILE, "training.json", GOLDEN_FILE)


def merge_adapter(checkpoint: Path, adapter: Path, out: Path) -> None:
    """Writes a checkpoint that a server reads as any other, with an adapter in its matrices.

    Args:
        checkpoint: Of the base or superres that the adapter was trained for.
        adapter: Folder of the adapter.
        out: Folder of the new checkpoint.

    Raises:
        CheckpointError: one of both is missing or cannot be read, or they do not belong together.
        ValueError: the checkpoint is the folder to write.
    """
    if out.resolve() == checkpoint.resolve():
        raise ValueError(f"expected another folder to write than {checkpoint}, which is read")
    added = load_adapter(adapter)
    if added.stage not in CONFIG_TYPES:
        raise CheckpointMismatch(
            f"{adapter} is an adapter of {added.stage!r}: expected one of {', '.join(CONFIG_TYPES)}"
        )
    read = load_family(checkpoint, stage=added.stage, config_types=CONFIG_TYPES[added.stage])
    check_belongs(added, read)

    def make(name: str) -> np.ndarray:
        value = read.parameters[name]
        return added.adapted(name, value) if name in added.factors else value

    shapes = {
        name: (value.shape, np.dtype(np.float32) if name in added.factors else value.dtype)
        for name, value in read.parameters.items()
    }
    merged = {**asdict(added.low_rank), "digest": added.digest, "checkpoint": read.digest}
    save_checkpoint(
        out,
        stage=added.stage,
        config=read.config,
        parameters=LazyTensors(shapes, make),
        fingerprint=read.fingerprint,
        family=family_of(read.config),
        record={**read.record, "merged_adapter": {**merged, "record": added.record}},
        files=[
            file
            for file in sorted(checkpoint.iterdir())
            if file.is_file() and file.name not in NOT_COPIED
        ],
    )
