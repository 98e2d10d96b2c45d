"""Figures of compiled programs: time, memory, arithmetic, traffic, and what should not be there."""

import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.stages import Compiled

from benchmarks.tpu_programs.findings import Findings, findings_of
from benchmarks.tpu_programs.program_text import ProgramText
from benchmarks.tpu_programs.stage_programs import compile_stage
from benchmarks.tpu_programs.traffic import bytes_moved
from services.decoding.serving import default_serving_config
from services.nn.compiling import Program, traced_for
from services.nn.sharding import model_mesh
from services.presets import Preset
from services.runtime.checkpoints.precision import Weights
from services.stages import StageName
from training.flops import flops_of_jaxpr

logger = logging.getLogger(__name__)
_SIZE = r"([\d.]+)([KMGT]?)"
# What libtpu says of a program that is too large: bytes needed and bytes there.
_TOO_LARGE = (
    re.compile(rf"Used {_SIZE} of {_SIZE} hbm"),
    re.compile(rf"\({_SIZE}\) exceeds available HBM \({_SIZE}\)"),
)


class DoesNotFit(ValueError):
    """A program needs more memory than its chip has; the message has both numbers."""


@dataclass(frozen=True, kw_only=True)
class CompiledProgram:
    """What the compiler says of one program on one device.

    The loops over steps and slots of `advance` count once: its FLOPs and bytes are of one step of
    one slot with guidance, and what a call does besides.

    Of devices that share a network, all figures are those of one.

    Attributes:
        stage: Whose program it is.
        name: Its name.
        seconds: That the compilation took here.
        argument_bytes: Of weights, slots and inputs.
        temporary_bytes: Of all else that is alive at a time, at its peak.
        peak_bytes: Of arguments, temporaries, results that do not overwrite arguments, and code.
        flops: Of products and convolutions.
        bytes_moved: Between the chip's memory and its cores; None if this jaxlib cannot read the
            program.
        findings: What should not be there; None likewise.
    """

    stage: StageName
    name: str
    seconds: float
    argument_bytes: int
    temporary_bytes: int
    peak_bytes: int
    flops: float
    bytes_moved: int | None
    findings: Findings | None


def compiled_programs(
    system: Preset,
    stage: StageName,
    devices: Sequence[jax.Device],
    *,
    max_batch_size: int,
    weights: Weights,
    shards: int = 1,
    rows: int = 1,
) -> list[CompiledProgram]:
    """Compiles every program of a stage for devices, as its server would there.

    Args:
        system: Configuration of every stage.
        stage: Which of them.
        devices: Of a TPU topology; the first ones are compiled for.
        max_batch_size: As of the servers' setting.
        weights: As of the servers' setting.
        shards: Devices that share base or superres, as of the servers' mesh.
        rows: Decodes that one call of base's or superres's network computes, as of their setting.

    Raises:
        DoesNotFit: a program needs more memory than a device has.
        ValueError: there are fewer devices, or they cannot share the stage evenly.
    """
    compiled: list[CompiledProgram] = []
    mesh = model_mesh(shards, devices)

    def compile(name: str, program: Program) -> Compiled:
        placed = program.on(devices[0]) if mesh is None else program
        traced = placed.jit().trace(*placed.shapes)
        lowered = traced.lower()
        began = time.monotonic()
        try:
            made = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            _check_fits(f"{stage}, {name}", devices[0], str(error))
            raise
        seconds = time.monotonic() - began
        logger.info("%s, %s: compiled in %.0f s", stage, name, seconds)
        memory: Any = made.memory_analysis()
        text = _text(made)
        compiled.append(
            CompiledProgram(
                stage=stage,
                name=name,
                seconds=seconds,
                argument_bytes=memory.argument_size_in_bytes,
                temporary_bytes=memory.temp_size_in_bytes,
                peak_bytes=memory.argument_size_in_bytes
                + memory.temp_size_in_bytes
                + memory.output_size_in_bytes
                - memory.alias_size_in_bytes
                + memory.generated_code_size_in_bytes,
                flops=flops_of_jaxpr(traced.jaxpr.jaxpr),
                bytes_moved=None if text is None else bytes_moved(text),
                findings=None if text is None else findings_of(text),
            )
        )
        return made

    with traced_for("tpu"):
        serving = default_serving_config(
            max_batch_size, shards=shards, weights=weights, rows_at_once=rows
        )
        compile_stage(system, stage, serving, mesh, compile)
    return compiled


def _check_fits(what: str, device: jax.Device, message: str) -> None:
    """Raises `DoesNotFit` if that is what the compiler's message says of a program."""
    for pattern in _TOO_LARGE:
        if found := pattern.search(message):
            raise DoesNotFit(
                f"{what}: expected a program that fits a {device.device_kind}, got one that takes "
                f"{found[1]} {found[2]}iB of memory where {found[3]} {found[4]}iB are; try a "
                "smaller --max-batch-size, --weights int8 or another chip"
            )


def _text(compiled: Compiled) -> ProgramText | None:
    try:
        return ProgramText(compiled.as_text() or "")
    except jax.errors.JaxRuntimeError as error:
        logger.warning("the compiled program cannot be read: %s", str(error).splitlines()[0])
        return None
