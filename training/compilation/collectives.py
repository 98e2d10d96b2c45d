"""Collective operations of a compiled program: their kinds, their bytes, and what waits for them.

Read from XLA's text of the optimised program (training/compilation/hlo.py).
"""

import re
from collections import defaultdict
from dataclasses import dataclass

from training.compilation.hlo import array_bytes, computation_lines, entry_of, trips_of

_COLLECTIVE = re.compile(
    r"= (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(-start)?\("
)
_CALLED = re.compile(r"(calls|to_apply|body)=%?([\w.\-]+)")


@dataclass(frozen=True, kw_only=True)
class Collectives:
    """The collectives of one kind in a call of a program, on one chip.

    Attributes:
        kind: "all-gather", "all-reduce", "reduce-scatter", "all-to-all" or "collective-permute".
        count: How many run, loops counted as often as they run.
        bytes: Of the arrays that they make; of a reduce-scatter, that it sums.
        exposed_bytes: Of those during which nothing else is computed.
    """

    kind: str
    count: int
    bytes: int
    exposed_bytes: int


@dataclass(frozen=True)
class _Operation:
    kind: str
    channel: str
    bytes: int
    asynchronous: bool


def collectives_of(text: str) -> list[Collectives]:
    """Returns the collectives of a program, the kind with the most bytes first.

    Args:
        text: Of `jax.stages.Compiled.as_text`.

    Raises:
        ValueError: the text has no entry computation.
    """
    computations = computation_lines(text)
    times: dict[str, int] = defaultdict(int)
    _count(computations, entry_of(text), 1, times)
    # A collective that overlaps with others is written several times: start, companions, end.
    found: dict[str, tuple[_Operation, int]] = {}
    for name, lines in computations.items():
        for line in lines:
            operation = _operation(name, line)
            if operation is None or not times[name]:
                continue
            before, most = found.get(operation.channel, (operation, 0))
            asynchronous = before.asynchronous or operation.asynchronous
            found[operation.channel] = (
                _Operation(before.kind, before.channel, before.bytes, asynchronous),
                max(most, times[name]),
            )
    kinds = {operation.kind for operation, _ in found.values()}
    totals = [
        _total(kind, [each for each in found.values() if each[0].kind == kind]) for kind in kinds
    ]
    return sorted(totals, key=lambda total: -total.bytes)


def _total(kind: str, operations: list[tuple[_Operation, int]]) -> Collectives:
    return Collectives(
        kind=kind,
        count=sum(times for _, times in operations),
        bytes=sum(each.bytes * times for each, times in operations),
        exposed_bytes=sum(
            each.bytes * times for each, times in operations if not each.asynchronous
        ),
    )


def _count(
    computations: dict[str, list[str]], name: str, times: int, totals: dict[str, int]
) -> None:
    """Adds how often a computation and those that it calls run."""
    totals[name] += times
    for line in computations.get(name, ()):
        for how, called in _CALLED.findall(line):
            trips = _trips(computations, line) if how == "body" else 1
            _count(computations, called, times * trips, totals)


def _trips(computations: dict[str, list[str]], line: str) -> int:
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    compared = computations.get(condition[1], []) if condition else []
    return trips_of(compared)


def _operation(computation: str, line: str) -> _Operation | None:
    found = _COLLECTIVE.search(line)
    if found is None:
        return None
    scattered = "reduce-scatter" in computation or "reduce_scatter" in computation
    channel = re.search(r"channel_id=(\d+)", line)
    fused = "async_collective" in computation or "async-collective" in line
    return _Operation(
        kind="reduce-scatter" if scattered else found[2],
        channel=channel[1] if channel else line,
        bytes=max(array_bytes(found[1]), default=0),
        asynchronous=found[3] is not None or fused,
    )
