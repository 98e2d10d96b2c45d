"""What a TPU compiler says of a preset's programs, as `benchmarks.tpu_programs --json` wrote it."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.description.chips import Chip


@dataclass(frozen=True, kw_only=True)
class CompiledStage:
    """Memory of a stage's programs on one chip.

    Attributes:
        peak_bytes: Of the program that needs most: weights, slots, temporaries, code.
        temporary_bytes: Of the program that has most.
    """

    peak_bytes: int
    temporary_bytes: int


@dataclass(frozen=True, kw_only=True)
class CompiledStages:
    """The stages that were compiled for a chip.

    Attributes:
        topology: That they were compiled for, such as "v5e:1x1".
        max_batch_size: Slots of base and superres, texts of one call of the text encoder.
        stages: By name.
    """

    topology: str
    max_batch_size: int
    stages: Mapping[str, CompiledStage]


def read_compiled(file: Path, *, preset: str, chip: Chip) -> CompiledStages:
    """Reads what was compiled for one chip of a kind, each stage on a chip of its own.

    Raises:
        ValueError: the file cannot be read, is of another form or preset, has programs that
            several chips share, or none for the chip.
    """
    try:
        content = json.loads(file.read_text("utf-8"))
        written, mesh, batch = content["preset"], content["mesh"], int(content["max_batch_size"])
        topologies = {name: _stages(programs) for name, programs in content["topologies"].items()}
    except OSError as error:
        raise ValueError(f"programs: {file} cannot be read: {error.strerror}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"programs: {file} is not what `python -m benchmarks.tpu_programs --json FILE` "
            f"writes: {error!r}"
        ) from error
    if written != preset:
        raise ValueError(f"programs: expected those of {preset}, {file} has those of {written}")
    if mesh:
        raise ValueError(
            f"programs: expected those of stages with one chip each, in {file} several share one "
            f"({mesh})"
        )
    of_chip = [name for name in topologies if name.partition(":")[0] == chip.name]
    if not of_chip:
        raise ValueError(
            f"programs: expected some for {chip.name}, {file} has those for {', '.join(topologies)}"
        )
    return CompiledStages(topology=of_chip[0], max_batch_size=batch, stages=topologies[of_chip[0]])


def _stages(programs: list[dict[str, Any]]) -> dict[str, CompiledStage]:
    of_stage = defaultdict(list)
    for each in programs:
        of_stage[each["stage"]].append(each)
    return {
        stage: CompiledStage(
            peak_bytes=max(int(each["peak_bytes"]) for each in those),
            temporary_bytes=max(int(each["temporary_bytes"]) for each in those),
        )
        for stage, those in of_stage.items()
    }
