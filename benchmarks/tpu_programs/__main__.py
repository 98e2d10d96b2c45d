"""The programs of every serving stage, compiled for TPUs that are not here.

`python -m benchmarks.tpu_programs --preset muse-3b --topology v5e:1x1`. The compiler is libtpu's
own (the extra `tpu`); it needs no TPU, and the programs no weights. Each is the program that a
server compiles before it serves. Nothing runs, so nothing here is a time on a TPU.
"""

import logging
import sys
from pathlib import Path

import jax
from cyclopts import App
from rich.console import Console

from benchmarks.measuring import conditions
from benchmarks.tpu_programs.compiled import CompiledProgram, DoesNotFit, compiled_programs
from benchmarks.tpu_programs.devices import TopologyDevices, devices_of
from benchmarks.tpu_programs.rendering import json_of, table_of
from services.mesh import parse_mesh
from services.presets import preset as preset_of
from services.runtime.checkpoints.precision import Weights
from services.stages import DECODING, StageName

app = App(help=__doc__)


@app.default
def main(
    *,
    preset: str = "muse-3b",
    topology: str = "v5e:1x1",
    stage: tuple[StageName, ...] = (),
    max_batch_size: int = 8,
    weights: Weights = "full",
    mesh: str = "",
    rows: int = 1,
    json: Path | None = None,
) -> None:
    """Prints what the compiler says of each program: memory, arithmetic, bytes, what is too much.

    Parameters
    ----------
    preset
        muse-3b, muse-632m, demo, demo256 or tiny.
    topology
        TPUs by libtpu's names, separated by commas; the first device of each is compiled for, or
        as many as share base or superres.
    stage
        A stage to compile; repeat the flag for several. By default all of the preset.
    max_batch_size
        As of the servers: slots of base and superres, texts of one call of the text encoder.
    weights
        As of the servers: int8 keeps the matrices of the layers in one byte per number.
    mesh
        As of the servers of base and superres, the only stages that it may be given for:
        model=4 shares each between four devices.
    rows
        As of the servers: decodes that one call of base's or superres's network computes.
    json
        File to write the figures to as well, for `muse describe --programs` and `muse plan`.
    """
    jax.config.update("jax_platforms", "cpu")  # what is traced here; libtpu only compiles
    system, shards = preset_of(preset), parse_mesh(mesh)
    stages = stage or system.stages
    if shards > 1 and (alone := sorted({*stages} - {*DECODING})):
        raise ValueError(
            f"mesh: {mesh} shares base and superres, expected --stage base, --stage superres or "
            f"both, got {', '.join(alone)} as well"
        )
    targets = [devices_of(name) for name in topology.split(",")]
    compiled: dict[str, list[CompiledProgram]] = {}
    too_large: list[str] = []
    for target in targets:
        compiled[target.topology] = []
        for each in stages:
            try:
                compiled[target.topology] += compiled_programs(
                    system,
                    each,
                    target.devices,
                    max_batch_size=max_batch_size,
                    weights=weights,
                    shards=shards,
                    rows=rows,
                )
            except DoesNotFit as error:
                too_large.append(f"{target.topology}, {error}")
        _print(preset, target, compiled[target.topology])
    if json is not None:
        document = json_of(
            compiled,
            preset=preset,
            max_batch_size=max_batch_size,
            weights=weights,
            mesh=mesh,
            rows=rows,
        )
        json.write_text(document + "\n")
    if too_large:
        raise DoesNotFit("\nerror: ".join(too_large))


def _print(preset: str, target: TopologyDevices, programs: list[CompiledProgram]) -> None:
    print(conditions("jax", "flax"))
    title = f"{preset} on a device of {target.topology}, {target.memory_bytes / 1e9:.0f} GB"
    Console(width=None if sys.stdout.isatty() else 220).print(
        table_of(title, programs, target.memory_bytes)
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        app()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
