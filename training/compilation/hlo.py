"""XLA's text of an optimised program: its computations and instructions, and its loops' trips.

The text names every operation of every loop's body once. A loop's trip count is the constant that
its condition compares with.
"""

import re
from dataclasses import dataclass

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\(([^)]*)\)(.*)$")
_ARRAY = re.compile(r"(pred|[suf]\d+|bf16)\[([\d,]*)\](\{[^}]*\})?")
_CONSTANT = re.compile(r"constant\((\d+)\)")
_OUTSIDE_HBM = re.compile(r"S\([1-9]\d*\)")  # of a layout: on-chip memory


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction of a computation.

    Attributes:
        name: Unique in the program.
        root: Whether its result is that of its computation.
        shape: Type, shape and layout of its result; of several in parentheses.
        opcode: Such as "fusion" or "while".
        arguments: What stands in its parentheses.
        attributes: What follows the operands.
    """

    name: str
    root: bool
    shape: str
    opcode: str
    arguments: str
    attributes: str

    @property
    def operands(self) -> list[str]:
        """Names of the instructions whose results it takes."""
        return re.findall(r"%([\w.\-]+)", self.arguments)

    def attribute(self, name: str) -> str | None:
        """Returns the name that an attribute such as "body" has as its value; None without one."""
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else None

    @property
    def branches(self) -> list[str]:
        """Computations of which a conditional runs one."""
        found = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        if found:
            return re.findall(r"[\w.\-]+", found[1])
        named = (self.attribute("true_computation"), self.attribute("false_computation"))
        return [each for each in named if each]

    @property
    def source(self) -> str:
        """Path of the JAX operation that it comes from; empty if unknown."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1].replace("\\'", "'") if found else ""


def computation_lines(text: str) -> dict[str, list[str]]:
    """Returns the lines of each computation by its name."""
    computations: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        begun = _COMPUTATION.match(line)
        if begun:
            lines = computations.setdefault(begun[2], [])
        elif line.startswith("  "):
            lines.append(line)
    return computations


def instructions_of(lines: list[str]) -> list[Instruction]:
    """Returns the instructions of a computation's lines."""
    found = (_INSTRUCTION.match(line) for line in lines)
    return [
        Instruction(
            name=each[2],
            root=each[1] is not None,
            shape=each[3],
            opcode=each[4],
            arguments=each[5],
            attributes=each[6],
        )
        for each in found
        if each
    ]


def entry_of(text: str) -> str:
    """Returns the name of the computation that a program runs.

    Raises:
        ValueError: the text has none.
    """
    for line in text.splitlines():
        begun = _COMPUTATION.match(line)
        if begun and begun[1]:
            return begun[2]
    raise ValueError("expected the text of a compiled program, got one without an ENTRY")


def trips_of(condition: list[str]) -> int:
    """Returns how often a loop runs, from the lines of its condition; 1 if they do not say."""
    constants = [int(value) for line in condition for value in _CONSTANT.findall(line)]
    return max(constants, default=1)


def array_bytes(shape: str, *, hbm_only: bool = False) -> list[int]:
    """Returns the bytes of each array of a shape such as "(f32[2,3]{1,0}, s32[])".

    Args:
        shape: As of `Instruction`.
        hbm_only: Whether an array whose layout puts it into on-chip memory counts as 0 bytes.
    """
    return [
        0 if hbm_only and _OUTSIDE_HBM.search(layout) else _bytes(dtype, sizes)
        for dtype, sizes, layout in _ARRAY.findall(shape)
    ]


def _bytes(dtype: str, sizes: str) -> int:
    bits = 16 if dtype == "bf16" else 8 if dtype == "pred" else int(dtype[1:])
    count = 1
    for size in sizes.split(","):
        count *= int(size or 1)
    return count * bits // 8
