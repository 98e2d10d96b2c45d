"""What the text of a serving program says that it should not."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.tpu_programs.program_text import Executed, ProgramText
from training.compilation.hlo import Instruction, array_bytes

_PRODUCTS = ("convolution", "dot")  # a TPU computes matrix products as convolutions
_HOST = ("infeed", "outfeed", "send", "recv")
# Of JAX's primitives, those that a compiler without an instruction for them computes in a loop.
_UNROLLED = ("gather", "scatter", "scatter-add", "sort", "dynamic_slice", "dynamic_update_slice")
LEAST_COPY = 2**20  # bytes; smaller arguments are no weights


@dataclass(frozen=True, kw_only=True)
class Copy:
    """An argument of the program, or a part of it, written again in another order of bytes.

    Attributes:
        argument: Path of the argument.
        bytes: Of the copy.
        runs: How often a call makes it, as of `Executed`.
        in_loop: Whether it is made inside of a loop.
    """

    argument: str
    bytes: int
    runs: int
    in_loop: bool


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a program has that costs time or memory without need.

    Attributes:
        float32_products: Products and convolutions of float32 factors, which take the matrix units
            several passes. Those of the tokenizers' `encode` are meant: its tokens depend on them.
        copies: Of arguments of at least `LEAST_COPY`, the largest first.
        loops: JAX's operations, such as gathers, that became loops.
        host_calls: Instructions that wait for the host.
    """

    float32_products: int
    copies: tuple[Copy, ...]
    loops: tuple[str, ...]
    host_calls: tuple[str, ...]


def findings_of(program: ProgramText) -> Findings:
    """Returns what a program says that it should not."""
    executed = list(program.executed(every_branch=True))
    everything = [part for each in executed for part in program.with_parts(each.instruction)]
    return Findings(
        float32_products=sum(_multiplies_float32(program, each) for each in everything),
        copies=tuple(sorted(_copies(program, executed), key=lambda copy: -copy.bytes)),
        loops=tuple(each.source for each in everything if _is_unrolled(each)),
        host_calls=tuple(each.name for each in everything if _calls_host(each)),
    )


def _multiplies_float32(program: ProgramText, each: Instruction) -> bool:
    if each.opcode not in _PRODUCTS:
        return False
    return all(program.shape_of(name).startswith("f32[") for name in each.operands[:2])


def _copies(program: ProgramText, executed: Iterable[Executed]) -> Iterable[Copy]:
    for each in executed:
        inside = [one for one in program.inside(each.instruction) if one.root]
        (computes,) = inside or [each.instruction]
        size = max(array_bytes(each.instruction.shape), default=0)
        if computes.opcode not in ("copy", "transpose") or size < LEAST_COPY:
            continue
        argument = program.argument_of(each.instruction.name)
        if argument is not None:
            yield Copy(argument=argument, bytes=size, runs=each.runs, in_loop=each.in_loop)


def _is_unrolled(each: Instruction) -> bool:
    return each.opcode == "while" and each.source.split("/")[-1] in _UNROLLED


def _calls_host(each: Instruction) -> bool:
    if each.opcode.startswith(_HOST):
        return True
    target = re.search(r'custom_call_target="([^"]*)"', each.attributes)
    return bool(target and re.search("host|callback|send|recv", target[1], re.IGNORECASE))
