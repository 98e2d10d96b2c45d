"""`muse describe`. Imports nothing heavy until it is called, so that `muse --help` stays fast."""

import json as json_format
from pathlib import Path

from services.presets import preset as preset_of
from services.runtime.checkpoints.errors import CheckpointError
from tools.description.chips import chip as chip_of


def describe(
    *,
    preset: str,
    chip: str = "h200",
    programs: Path | None = None,
    tokenizers: Path | None = None,
    json: bool = False,
) -> None:
    """Says what every stage of a preset is and the least it costs on a chip; allocates nothing.

    Parameters
    ----------
    preset
        muse-3b, muse-632m, demo or tiny.
    chip
        What the floors are for: h200, v4, v5e, v6e or cpu.
    programs
        What a TPU compiler said of the preset's programs, the file of `python -m
        benchmarks.tpu_programs --json FILE`: adds the memory that each stage takes at its peak.
    tokenizers
        Folder with the checkpoints `low` and, for a preset with a superres, `high`, such as
        imported ones, whose networks take the place of the preset's tokenizers.
    json
        Print JSON rather than tables.
    """
    system, floor_chip = preset_of(preset), chip_of(chip)
    try:
        import jax
        from rich.console import Console

        from services.tokenizer.families import load_tokenizer
        from tools.description.compiled import read_compiled
        from tools.description.description import describe as describe_system
        from tools.description.rendering import rendered
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"describe computes shapes with JAX, and {error.name} is not installed: "
            'install the extra "serve"'
        ) from error
    jax.config.update("jax_platforms", "cpu")  # shapes only: no accelerator is worth starting
    compiled = None
    if programs is not None:
        compiled = read_compiled(programs, preset=system.name, chip=floor_chip)
    networks = None
    if tokenizers is not None:
        try:
            networks = {
                name: load_tokenizer(tokenizers / name).config for name in system.tokenizers
            }
        except CheckpointError as error:
            raise ValueError(f"--tokenizers: {error}") from error
    description = describe_system(system, floor_chip, compiled, networks)
    if json:
        print(json_format.dumps(description.to_json(), indent=2))
    else:
        Console().print(rendered(description))
