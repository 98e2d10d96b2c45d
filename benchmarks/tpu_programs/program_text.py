"""A compiled program read as a whole: what runs in its loops, and where its arrays come from."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from training.compilation.hlo import (
    Instruction,
    computation_lines,
    entry_of,
    instructions_of,
    trips_of,
)

# Instructions whose result is their first operand, or a part of it, in whatever order of bytes.
_VIEWS = frozenset(
    [
        "bitcast",
        "copy",
        "copy-start",
        "copy-done",
        "transpose",
        "reshape",
        "slice",
        "dynamic-slice",
        "convert",
        "optimization-barrier",
    ]
)


@dataclass(frozen=True, kw_only=True)
class Executed:
    """An instruction that the device runs, fusions as a whole.

    Attributes:
        instruction: The instruction.
        runs: How often a call runs it; the body of a loop whose trips the program does not say,
            such as the loops over steps and slots, counts once.
        in_loop: Whether it is inside of any loop.
    """

    instruction: Instruction
    runs: int
    in_loop: bool


class ProgramText:
    """XLA's text of an optimised program.

    Attributes:
        computations: Instructions of each computation by its name.
        entry: Name of the computation that a call runs.
    """

    def __init__(self, text: str) -> None:
        """Reads the text of `jax.stages.Compiled.as_text`.

        Raises:
            ValueError: the text has no entry computation.
        """
        lines = computation_lines(text)
        self.entry = entry_of(text)
        self.computations = {name: instructions_of(each) for name, each in lines.items()}
        self._trips = {name: trips_of(each) for name, each in lines.items()}
        self._by_name = {
            instruction.name: (instruction, computation)
            for computation, instructions in self.computations.items()
            for instruction in instructions
        }
        # The instruction that calls each computation, of a loop's body and of a fusion one.
        self._callers: dict[str, Instruction] = {}
        for instructions in self.computations.values():
            for each in instructions:
                for name in (each.attribute("body"), each.attribute("calls"), *each.branches):
                    if name:
                        self._callers.setdefault(name, each)

    def executed(self, *, every_branch: bool) -> Iterator[Executed]:
        """Yields the instructions of a call.

        Args:
            every_branch: Whether of a conditional the instructions of all branches are yielded, or
                only those of the branch that has most.
        """
        yield from self._executed(self.entry, 1, in_loop=False, every_branch=every_branch)

    def _executed(
        self, computation: str, runs: int, *, in_loop: bool, every_branch: bool
    ) -> Iterator[Executed]:
        inside = partial(self._executed, every_branch=every_branch)
        for each in self.computations.get(computation, []):
            if each.opcode == "while":
                trips = self._trips.get(each.attribute("condition") or "", 1)
                yield from inside(each.attribute("body") or "", runs * trips, in_loop=True)
            elif each.opcode == "conditional":
                branches = [list(inside(name, runs, in_loop=in_loop)) for name in each.branches]
                for branch in branches if every_branch else [max(branches, key=len, default=[])]:
                    yield from branch
            elif each.opcode == "call":
                yield from inside(each.attribute("to_apply") or "", runs, in_loop=in_loop)
            yield Executed(instruction=each, runs=runs, in_loop=in_loop)

    def inside(self, fusion: Instruction) -> list[Instruction]:
        """Returns the instructions that a fusion computes at once; none of others."""
        name = fusion.attribute("calls") if fusion.opcode == "fusion" else None
        return self.computations.get(name or "", [])

    def with_parts(self, each: Instruction) -> Iterator[Instruction]:
        """Yields an instruction and, if it is a fusion, all that it computes, fusions in it too."""
        yield each
        for part in self.inside(each):
            yield from self.with_parts(part)

    def shape_of(self, name: str) -> str:
        """Returns the shape of an instruction's result; empty if there is none of that name."""
        return self._by_name[name][0].shape if name in self._by_name else ""

    def argument_of(self, name: str) -> str | None:
        """Returns the argument of the program that an instruction's result is or is a part of.

        It is followed through views, fusions of them, and the tuples that loops carry.

        Returns:
            The argument's path, such as "parameters['blocks']['mlp']['expand']['kernel']"; None if
            the result is computed.
        """
        found = self._followed(name, None)
        return None if found is None else found.source or found.name

    def _followed(self, name: str, index: int | None) -> Instruction | None:
        """Returns the entry's parameter behind a result, or behind element `index` of a tuple."""
        if name not in self._by_name:
            return None
        each, computation = self._by_name[name]
        if each.opcode == "parameter":
            return each if computation == self.entry else self._passed(each, computation, index)
        if each.opcode == "get-tuple-element":
            return self._followed(each.operands[0], int(each.attribute("index") or 0))
        if each.opcode == "tuple" and index is not None:
            return self._followed(each.operands[index], None)
        if each.opcode == "while" and self._keeps(each.attribute("body") or "", index):
            return self._followed(each.operands[0], index)
        if each.opcode == "fusion":
            roots = [inner.name for inner in self.inside(each) if inner.root]
            return self._followed(roots[0], index)
        return self._followed(each.operands[0], index) if each.opcode in _VIEWS else None

    def _passed(
        self, parameter: Instruction, computation: str, index: int | None
    ) -> Instruction | None:
        """Follows the parameter of a loop's body, a branch or a fusion to its caller."""
        caller = self._callers.get(computation)
        if caller is None or (caller.opcode == "while" and not self._keeps(computation, index)):
            return None
        position = int(parameter.arguments)
        if caller.opcode == "conditional":  # whose first operand is the branch's index
            position = 1 + caller.branches.index(computation)
        return self._followed(caller.operands[position], index)

    def _keeps(self, body: str, index: int | None) -> bool:
        """Returns whether a loop's body passes element `index` of its tuple on as it is."""
        (root,) = (each for each in self.computations.get(body, []) if each.root)
        if root.opcode != "tuple" or index is None:
            return False
        passed, _ = self._by_name[root.operands[index]]
        return passed.opcode == "get-tuple-element" and passed.attribute("index") == str(index)
