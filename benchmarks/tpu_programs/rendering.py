"""Compiled programs as a table for people, and as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.table import Table

from benchmarks.tpu_programs.compiled import CompiledProgram
from benchmarks.tpu_programs.findings import Copy, Findings
from services.runtime.checkpoints.precision import Weights

GB, MB = 1e9, 1e6
MOST_NAMED = 3  # copies of one program that the table names


def table_of(title: str, programs: Sequence[CompiledProgram], memory_bytes: float) -> Table:
    """Returns a row of figures for each program of a topology.

    Args:
        title: Of the table.
        programs: In the order of their rows.
        memory_bytes: Of the device that they were compiled for.
    """
    table = Table(title=title)
    for column in ("stage", "program"):
        table.add_column(column)
    for column in ("s", "arguments", "temporaries", "peak", "of memory", "GFLOP", "moved"):
        table.add_column(column, justify="right")
    table.add_column("should not be")
    for each in programs:
        table.add_row(
            each.stage,
            each.name,
            f"{each.seconds:.0f}",
            _size(each.argument_bytes),
            _size(each.temporary_bytes),
            _size(each.peak_bytes),
            f"{each.peak_bytes / memory_bytes:.0%}",
            f"{each.flops / 1e9:.3g}",
            "not known" if each.bytes_moved is None else _size(each.bytes_moved),
            "not known" if each.findings is None else _sentence(each.findings),
        )
    return table


def json_of(
    programs: Mapping[str, Sequence[CompiledProgram]],
    *,
    preset: str,
    max_batch_size: int,
    weights: Weights,
    mesh: str,
    rows: int,
) -> str:
    """Returns programs by their topology as a JSON document, with what they were compiled for."""
    document = {
        "preset": preset,
        "max_batch_size": max_batch_size,
        "weights": weights,
        "mesh": mesh,
        "rows": rows,
        "topologies": {name: [asdict(each) for each in those] for name, those in programs.items()},
    }
    return json.dumps(document, indent=2)


def _sentence(findings: Findings) -> str:
    parts = []
    if findings.float32_products:
        parts.append(f"{findings.float32_products} float32 products")
    parts += [_copied(copy) for copy in findings.copies[:MOST_NAMED]]
    if left := findings.copies[MOST_NAMED:]:
        parts.append(f"{len(left)} further copies, {_size(sum(copy.bytes for copy in left))}")
    parts += [f"a loop for {loop.split('/')[-1]}" for loop in findings.loops]
    parts += [f"waits for the host: {call}" for call in findings.host_calls]
    return "; ".join(parts)


def _copied(copy: Copy) -> str:
    often = f", {copy.runs} times" if copy.runs > 1 else ""
    return f"copies {copy.argument}, {_size(copy.bytes)}{often}{' in a loop' * copy.in_loop}"


def _size(count: float) -> str:
    return f"{count / GB:.2f} GB" if count >= GB / 10 else f"{count / MB:.2f} MB"
