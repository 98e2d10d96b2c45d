"""Bytes that a compiled program moves between a chip's memory and its cores."""

from benchmarks.tpu_programs.program_text import ProgramText
from training.compilation.hlo import Instruction, array_bytes

# Instructions that move nothing: names for results, and what their bodies and operands move.
_STILL = frozenset(
    [
        "parameter",
        "constant",
        "get-tuple-element",
        "tuple",
        "bitcast",
        "while",
        "conditional",
        "call",
        "optimization-barrier",
        "after-all",
    ]
)
_PARTS = frozenset(("dynamic-slice", "slice", "gather"))  # they read as much as they return


def bytes_moved(program: ProgramText) -> int:
    """Returns the bytes that a call reads from and writes to the chip's memory.

    An instruction, fusions as a whole, reads its operands and writes its result once. Of an operand
    that it slices it reads the slices, and an update in place writes only the update. On-chip
    memory is not counted. Loops are counted as `ProgramText.executed` does; of a conditional the
    branch with most instructions is counted.
    """
    return sum(
        each.runs * (_read(program, each.instruction) + _written(program, each.instruction))
        for each in program.executed(every_branch=False)
        if each.instruction.opcode not in _STILL and not each.instruction.opcode.endswith("-done")
    )


def _read(program: ProgramText, each: Instruction) -> int:
    shapes = (program.shape_of(name) for name in each.operands)
    whole = [sum(array_bytes(shape, hbm_only=True)) for shape in shapes]
    return sum(
        min(size, _of_operand(program, each, position, size))
        for position, size in enumerate(whole)
        if size
    )


def _of_operand(program: ProgramText, each: Instruction, position: int, whole: int) -> int:
    """Returns the bytes that an instruction reads of an operand of `whole` bytes."""
    inside = program.inside(each)
    if inside:
        parameters = [one for one in inside if one.opcode == "parameter"]
        names = [one.name for one in parameters if int(one.arguments) == position]
        return _of_uses(program, inside, names[0], whole)
    if position == 0 and each.opcode in _PARTS:
        return sum(array_bytes(each.shape))
    return 0 if position == 0 and each.opcode == "dynamic-update-slice" else whole


def _of_uses(program: ProgramText, inside: list[Instruction], name: str, whole: int) -> int:
    """Returns the bytes that the instructions of a fusion read of what one of them names."""
    return sum(
        _of_uses(program, inside, use.name, whole)
        if use.opcode == "bitcast"
        else _of_operand(program, use, place, whole)
        for use in inside
        for place, operand in enumerate(use.operands)
        if operand == name
    )


def _written(program: ProgramText, each: Instruction) -> int:
    if each.opcode.endswith("-start"):  # its tuple is the destination, its operand and a token
        return array_bytes(each.shape, hbm_only=True)[0]
    roots = [one for one in program.inside(each) if one.root] or [each]
    if roots[0].opcode == "dynamic-update-slice":
        return sum(array_bytes(program.shape_of(roots[0].operands[1])))
    return sum(array_bytes(each.shape, hbm_only=True))
