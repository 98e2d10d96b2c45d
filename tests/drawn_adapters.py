"""Low-rank adapters of random factors, large enough to change what a small transformer decodes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from services.nn.stacks import STACKS
from services.runtime.checkpoints.adapters import Adapter, LowRank, load_adapter, save_adapter
from services.runtime.checkpoints.serialization import round_to_bfloat16


def drawn_adapter(
    folder: Path,
    parameters: Mapping[str, np.ndarray],
    *,
    rank: int = 2,
    seed: int = 0,
    stage: str = "base",
    checkpoint: str = "sha256:0",
    spread: float = 0.3,
) -> Adapter:
    """Writes an adapter of every matrix of the blocks, as training does, and reads it back.

    `spread` is the standard deviation of the factors.
    """
    random, factors = np.random.default_rng(seed), {}
    for name, kernel in parameters.items():
        if name.endswith(".kernel") and name.partition(".")[0] in STACKS:
            *stack, inputs, outputs = kernel.shape
            matrix = name.removesuffix(".kernel")
            factors[f"{matrix}.lora_a"] = spread * random.normal(size=(*stack, inputs, rank))
            factors[f"{matrix}.lora_b"] = spread * random.normal(size=(*stack, rank, outputs))
    save_adapter(
        folder,
        stage=stage,
        low_rank=LowRank(rank=rank, alpha=rank),
        checkpoint=checkpoint,
        parameters=round_to_bfloat16(factors),
        record={"drawn": True},
    )
    return load_adapter(folder)
