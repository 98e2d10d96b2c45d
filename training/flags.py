"""Flags of the commands of `python -m training`, in groups that several commands share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import jax
from cyclopts import Parameter

from training.mesh import Execution, training_mesh
from training.processes import join_processes


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """Flags of every command.

    Attributes:
        data: Folder of sprites; or folder or URL (gs://, s3://) of WebDataset tars, Parquet files,
            ArrayRecord files or pictures with captions.
        out: Folder of the run: its state, log and pictures.
        checkpoints: Root of the frozen stages; the trained one is exported there too.
        preset: System that the stage belongs to.
        seed: Of the data, the initial parameters and all chance of the training.
        profile: Steps that JAX's profiler records into OUT/profile, such as 100:105.
    """

    data: str
    out: Path
    checkpoints: Path
    preset: str = "demo"
    seed: int = 0
    profile: str | None = None

    @property
    def profiled_steps(self) -> range:
        """The steps to profile.

        Raises:
            ValueError: `profile` is no two steps.
        """
        if self.profile is None:
            return range(0)
        first, _, end = self.profile.partition(":")
        if not (first.isdecimal() and end.isdecimal() and int(first) < int(end)):
            raise ValueError(
                f"profile: expected the first step and the one after the last, such as 100:105, "
                f"got {self.profile!r}"
            )
        return range(int(first), int(end))


@dataclass(frozen=True, kw_only=True)
class TransformerFlags:
    """Further flags of both transformers' commands.

    Attributes:
        precomputed: Folder of shards that `python -m training.precompute` wrote of the same data.
        workers: Processes that compose all scenes before the first step; for a GPU or TPU.
        initialize_from: Checkpoint of the same stage to start from, such as OUT/unfinished of a
            stopped run.
    """

    precomputed: Path | None = None
    workers: int | None = None
    initialize_from: Annotated[Path | None, Parameter(name="--from")] = None


@dataclass(frozen=True, kw_only=True)
class TokenizerFlags:
    """Further flags of the tokenizers' command.

    Attributes:
        resolution: Whose tokenizer: the base's (low) or the superres's (high).
        initialize_from: Checkpoint of a tokenizer of the same shape to start from.
        finetune_decoder: Train a decoder alone, for the encoder and codebook of --from, which
            stay as they are; its own decoder may have any shape.
        decoder_base_channels: Channels of the decoder at full resolution, if not the preset's.
        decoder_residual_blocks: Residual blocks a resolution of the decoder, if not the preset's.
        perceptual: LPIPS file that `python -m training.perceptual convert` wrote; without one the
            loss has no perceptual part.
    """

    resolution: Literal["low", "high"]
    initialize_from: Annotated[Path | None, Parameter(name="--from")] = None
    finetune_decoder: Annotated[bool, Parameter(negative="")] = False
    decoder_base_channels: int | None = None
    decoder_residual_blocks: int | None = None
    perceptual: Path | None = None


@dataclass(frozen=True, kw_only=True)
class DeviceFlags:
    """On what a run computes; none of it changes what it learns but for rounding.

    Attributes:
        mesh: How all devices of all processes are arranged, such as data=2,fsdp=64,tensor=2; by
            default the examples are divided among all.
        accumulate: Parts that a batch is divided into, computed one after the other to save memory.
        remat: "layer" computes the inside of each layer again in the backward pass,
            for less memory; "none" keeps it.
        coordinator: Address of the first of several processes, such as host-0:8476; "auto" finds
            processes as TPU pods, Slurm and MPI start them. All write to one shared --out.
        processes: How many processes there are.
        process_id: Which of them this is, from 0.
    """

    mesh: str | None = None
    accumulate: int = 1
    remat: Literal["layer", "none"] = "none"
    coordinator: str | None = None
    processes: int | None = None
    process_id: int | None = None

    def execution(self) -> Execution:
        """Joins the processes of the run, and arranges their devices.

        Raises:
            ValueError: the mesh is not of these devices, or only part of the processes is named.
        """
        join_processes(self.coordinator, self.processes, self.process_id)
        return Execution(
            mesh=training_mesh(self.mesh, jax.devices()),
            accumulate=self.accumulate,
            remat=self.remat == "layer",
        )


NO_TRANSFORMER_FLAGS = TransformerFlags()
DEFAULT_DEVICES = DeviceFlags()
