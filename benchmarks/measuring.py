"""What every timing here shares: the CPUs it may use, turns in order, medians with ranges."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Some measurements of one thing.

    Attributes:
        values: As they came; at least one.
    """

    values: Sequence[float]

    @property
    def median(self) -> float:
        """The middle one."""
        return float(np.median(self.values))

    def __format__(self, spec: str) -> str:
        """Returns "median (least-most)", each number in the format `spec`."""
        least, most = min(self.values), max(self.values)
        return f"{self.median:{spec}} ({least:{spec}}-{most:{spec}})"


def limit_cpus(count: int) -> int:
    """Keeps this process on at most `count` CPUs; returns on how many it is.

    Call it before JAX makes its first array and PyTorch its first product: both size their pools of
    threads by it.
    """
    allowed = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, allowed)
    return len(allowed)


def in_turns(
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Spread]:
    """Times contenders one after the other, round by round (A B C A B C), warm.

    What slows the machine down for a while then slows all of them.

    Args:
        contenders: By name; each is called once before the clock starts.
        rounds: Timed calls of each.
        clock: Seconds; `time.process_time` leaves out what other processes take.

    Returns:
        Seconds a call, by name.
    """
    for call in contenders.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            begun = clock()
            call()
            seconds[name].append(clock() - begun)
    return {name: Spread(values) for name, values in seconds.items()}


def conditions(*packages: str) -> str:
    """Returns the day, the processor and the versions a figure was measured with."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.processor() or platform.machine()
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    return " · ".join(
        [
            f"{datetime.now(UTC):%Y-%m-%d}",
            f"{len(os.sched_getaffinity(0))} CPUs {processor}",
            f"Python {platform.python_version()}",
            *versions,
        ]
    )
