"""Command-line settings of the servers of masked stages. Imports no JAX."""

from dataclasses import dataclass
from pathlib import Path

from services.runtime.checkpoints.precision import Precision, Weights
from services.runtime.server.settings import StageSettings


@dataclass(frozen=True, kw_only=True)
class MaskedSettings(StageSettings):
    """Settings of the server of a masked stage.

    Attributes:
        checkpoints: Folder whose subfolder of the stage's name holds the checkpoint.
        mesh: Devices of this host that share the network, such as "model=4": each device has a
            quarter of the heads and of the weights. By default one device has all of them.
        adapter: A low-rank adapter that requests may name, as NAME=FOLDER; repeat the flag for each
            one. Those in the subfolders adapters/NAME of the checkpoint need no flag.
        weights: int8 keeps the matrices of the blocks in one byte per number.
        precision: Type of weights and of the factors of matrix products. By default bfloat16 on
            accelerators and on CPUs that multiply it faster, and float32 on others.
        rows: Decodes that one call of the network computes, 1 to max_batch_size. More than 1 fills
            a device that one decode leaves waiting; a lone decode then takes as long as that many.
    """

    checkpoints: Path
    mesh: str = ""
    adapter: tuple[str, ...] = ()
    weights: Weights = "full"
    precision: Precision | None = None
    rows: int = 1
