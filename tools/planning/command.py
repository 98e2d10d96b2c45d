"""`muse plan`. Imports nothing heavy until it is called, so that `muse --help` stays fast."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from services.presets import Preset
    from tools.description.chips import Chip
    from tools.description.compiled import CompiledStages
    from tools.planning.step_times import Measured, StageTimes


def plan(
    *,
    images_per_second: float,
    p99: str,
    chip: str,
    preset: str = "muse-632m",
    mix: Annotated[list[str] | None, Parameter(negative=())] = None,
    step_times: Path | None = None,
    efficiency: float = 0.5,
    max_batch_size: int | None = None,
    rows: int = 1,
    programs: Path | None = None,
    time_between_failures: str = "30d",
    time_to_replace: str = "5m",
    requests: int = 10_000,
    seed: int = 0,
    out: Path = Path("out/plan"),
) -> None:
    """Says how many replicas and chips each stage needs for a load, and simulates that fleet.

    Parameters
    ----------
    images_per_second
        Requests that arrive a second, on average, by themselves; each is for one picture.
    p99
        Time in which 99% of them are to be answered, such as 2s or 500ms.
    chip
        One for each replica of a stage: h200, v4, v5e, v6e or cpu.
    preset
        muse-3b, muse-632m, demo or tiny.
    mix
        A kind of request, such as "steps=8,guidance_scale=0,weight=3"; several make a mix. A
        sampling parameter that is not named has the servers' default.
    step_times
        JSON file of measured times; stages that are not in it are computed.
    efficiency
        Share of the chip's ceiling, of arithmetic or of memory, that computed times reach.
    max_batch_size
        Slots of base and superres, largest batch of the others, where times are computed; by
        default what needs the fewest chips.
    rows
        Decodes that one call of the network of base and superres computes, as the servers' --rows,
        where times are computed.
    programs
        What a TPU compiler said of the preset's programs, the file of `python -m
        benchmarks.tpu_programs --json FILE`: their temporary arrays count as memory as well, where
        times are computed.
    time_between_failures
        Of one replica, on average, such as 30d.
    time_to_replace
        From a failure until the replica serves again.
    requests
        Simulated in each run, at least.
    seed
        Of arrivals, mix and failures.
    out
        Folder of plan.json, plan.png and plan.html.
    """
    from services.presets import preset as preset_of
    from tools.description.chips import chip as chip_of
    from tools.description.compiled import read_compiled
    from tools.planning.demand import demand_of, read_seconds

    system, taken_chip = preset_of(preset), chip_of(chip)
    target_s = read_seconds("p99", p99)
    mean_failure_s = read_seconds("time_between_failures", time_between_failures)
    replace_s = read_seconds("time_to_replace", time_to_replace)
    demand = demand_of(mix or [], system, rate=images_per_second)
    _check_numbers(
        efficiency=efficiency, max_batch_size=max_batch_size, rows=rows, requests=requests
    )
    try:
        from rich.console import Console

        from tools.cli.image_files import check_folder
        from tools.planning.plan import make_plan
        from tools.planning.rendering import heading, rendered, write_plot
        from tools.planning.step_times import Measured, read_step_times
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f'plan needs {error.name}, which is not installed: install the extra "orchestrator"'
        ) from error
    check_folder("out", out)
    measured = Measured(source="", stages={})
    if step_times is not None:
        measured = read_step_times(step_times)
    compiled = None
    if programs is not None:
        compiled = read_compiled(programs, preset=system.name, chip=taken_chip)
    options = _options(system, taken_chip, measured, efficiency, max_batch_size, rows, compiled)
    found = make_plan(
        options,
        demand,
        p99_s=target_s,
        mean_failure_s=mean_failure_s,
        replace_s=replace_s,
        requests=requests,
        seed=seed,
    )
    lines = heading(system.name, taken_chip, measured, efficiency, rows, found)
    out.mkdir(parents=True, exist_ok=True)
    report = {
        "preset": system.name,
        "chip": taken_chip.name,
        "efficiency": efficiency,
        "rows": rows,
        "measured": {"source": measured.source, "stages": sorted(measured.stages)},
        "seed": seed,
        **found.to_json(),
    }
    (out / "plan.json").write_text(json.dumps(report, indent=2) + "\n")
    console = Console()
    console.print(rendered(lines, found, mean_failure_s=mean_failure_s, replace_s=replace_s))
    write_plot(found, out, title=lines[0])
    console.print(f"{out}/plan.json, plan.png, plan.html", highlight=False, markup=False)


def _check_numbers(
    *, efficiency: float, max_batch_size: int | None, rows: int, requests: int
) -> None:
    from tools.planning.step_times import MOST_SLOTS

    if not 0 < efficiency <= 1:
        raise ValueError(f"efficiency: expected a share above 0, 1 at most, got {efficiency:g}")
    if max_batch_size is not None and not 1 <= max_batch_size <= MOST_SLOTS:
        raise ValueError(f"max_batch_size: expected 1 to {MOST_SLOTS}, got {max_batch_size}")
    if not 1 <= rows <= MOST_SLOTS:
        raise ValueError(f"rows: expected 1 to {MOST_SLOTS}, got {rows}")
    if not 1000 <= requests <= 10_000_000:
        raise ValueError(
            f"requests: expected 1000 to 10000000, of which the last percent says something, "
            f"got {requests}"
        )


def _options(
    preset: "Preset",
    chip: "Chip",
    measured: "Measured",
    efficiency: float,
    max_batch_size: int | None,
    rows: int,
    compiled: "CompiledStages | None",
) -> "dict[str, list[StageTimes]]":
    """Returns the times of every stage, measured where they were, in the order of a request."""
    from services.stages import ORCHESTRATOR
    from tools.planning.step_times import ORCHESTRATOR_TIMES

    order = (ORCHESTRATOR, *preset.stages)
    if unknown := set(measured.stages).difference(order):
        raise ValueError(
            f"step_times: expected stages of {preset.name}, {', '.join(order)}, got "
            f"{', '.join(sorted(unknown))}"
        )
    options: dict[str, list[StageTimes]] = {ORCHESTRATOR: [ORCHESTRATOR_TIMES]}
    options |= {stage: [times] for stage, times in measured.stages.items()}
    missing = [stage for stage in order if stage not in options]
    if missing:
        try:
            import jax

            from tools.planning.computed import computed
        except ModuleNotFoundError as error:
            raise RuntimeError(
                f"times of {', '.join(missing)} are computed from shapes with JAX, and "
                f'{error.name} is not installed: install the extra "serve", or give measured '
                "times of every stage with --step-times"
            ) from error
        jax.config.update("jax_platforms", "cpu")  # shapes only: no accelerator is worth starting
        options |= computed(
            preset,
            chip,
            missing,
            efficiency=efficiency,
            max_batch_size=max_batch_size,
            rows=rows,
            compiled=compiled,
        )
    return {stage: options[stage] for stage in order}
