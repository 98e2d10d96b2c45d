"""A description as tables for people."""

from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tools.description.chips import Chip
from tools.description.compiled import CompiledStages
from tools.description.description import Cost, StageDescription, SystemDescription

PREFIXES = ("", "K", "M", "G", "T", "P")


def scaled(amount: float, unit: str) -> str:
    """Returns three digits or so with a decimal prefix, such as "6.54 GB"."""
    step = 0
    while abs(amount) >= 1000 and step < len(PREFIXES) - 1:
        amount, step = amount / 1000, step + 1
    digits = 0 if step == 0 or amount >= 100 else 1 if amount >= 10 else 2
    return f"{amount:.{digits}f} {PREFIXES[step]}{unit}".rstrip()


def rendered(system: SystemDescription) -> RenderableType:
    """Lays out costs, then what each step reveals, then the configurations."""
    memory = () if system.compiled is None else (_memory(system.chip, system.compiled),)
    return Group(_heading(system), _costs(system), *memory, _steps(system), _configurations(system))


def _rows(system: SystemDescription) -> Iterator[tuple[str, StageDescription]]:
    for name, stage in system.stages.items():
        yield name, stage
        for member, description in stage.members.items():
            yield f"  {member}", description


def _heading(system: SystemDescription) -> Text:
    chip = system.chip
    return Text(
        f"{system.preset} on {chip.label}: {scaled(chip.peak_flops_per_s, 'FLOP/s')}, "
        f"{scaled(chip.bandwidth_bytes_per_s, 'B/s')} ({chip.source})"
    )


def _costs(system: SystemDescription) -> Table:
    table = Table(
        title="Parameters, and the least one image takes", title_justify="left", box=box.SIMPLE
    )
    table.add_column("stage", no_wrap=True)
    for column in ("weights", "bf16", "tokens", "FLOPs", "bytes", "floor"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, stage in _rows(system):
        grid = "" if stage.token_grid is None else "x".join(map(str, stage.token_grid))
        size = scaled(stage.parameters, ""), scaled(stage.bytes_bf16, "B")
        table.add_row(name, *size, grid, *_cost_cells(stage.cost))
        if stage.encode is not None:
            table.add_row("    encode", "", "", "", *_cost_cells(stage.encode))
    table.add_section()
    size = scaled(system.parameters, ""), scaled(2 * system.parameters, "B")
    table.add_row("all", *size, "", *_cost_cells(system.cost))
    return table


def _cost_cells(cost: Cost) -> tuple[str, str, str]:
    return (
        scaled(cost.flops_per_image, ""),
        scaled(cost.least_bytes_per_image, "B"),
        f"{cost.floor_ms:.4g} ms",
    )


def _memory(chip: Chip, compiled: CompiledStages) -> Table:
    title = f"Memory on {compiled.topology} with a batch of {compiled.max_batch_size}, by compiler"
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    table.add_column("stage", no_wrap=True)
    for column in ("peak", "of the chip", "temporaries"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, stage in compiled.stages.items():
        share = f"{stage.peak_bytes / chip.memory_bytes:.0%}"
        peak, temporaries = (
            scaled(size, "B") for size in (stage.peak_bytes, stage.temporary_bytes)
        )
        table.add_row(name, peak, share, temporaries)
    return table


def _steps(system: SystemDescription) -> Table:
    table = Table(title="Tokens unmasked per step", title_justify="left", box=box.SIMPLE)
    table.add_column("stage", no_wrap=True)
    table.add_column("steps", justify="right")
    table.add_column("tokens")
    for name, stage in system.stages.items():
        if stage.unmasked_per_step is not None:
            counts = " ".join(map(str, stage.unmasked_per_step))
            table.add_row(name, str(len(stage.unmasked_per_step)), counts)
    return table


def _configurations(system: SystemDescription) -> Table:
    table = Table(title="Configurations", title_justify="left", box=box.SIMPLE)
    table.add_column("stage", no_wrap=True)
    table.add_column("configuration")
    for name, stage in _rows(system):
        if not stage.members:
            fields = ", ".join(f"{field}={value}" for field, value in stage.configuration.items())
            table.add_row(name.strip(), fields)
    return table
