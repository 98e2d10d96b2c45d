"""How fast a run learns, and which share of its time and of its chips goes into steps."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any

import jax

from tools.description.chips import CHIPS

# What JAX calls the chips whose published peaks are known.
_KINDS = {"TPU v4": "v4", "TPU v5 lite": "v5e", "TPU v6 lite": "v6e", "NVIDIA H200": "h200"}


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """What a step is worth.

    Attributes:
        batch_size: Examples of a step.
        flops: Of a step's products and convolutions, without what remat computes again.
        chips: That share it.
        device_kind: Their kind, as JAX calls it.
    """

    batch_size: int
    flops: float
    chips: int
    device_kind: str

    def of(self, step_s: float) -> dict[str, float]:
        """Returns examples and TFLOP a second, and of chips whose peak is known its share (MFU).

        Args:
            step_s: Seconds a step.
        """
        flops_per_s = self.flops / step_s / self.chips
        found = {
            "examples_per_s": self.batch_size / step_s,
            "tflops_per_s_per_chip": flops_per_s / 1e12,
        }
        known = [name for kind, name in _KINDS.items() if self.device_kind.startswith(kind)]
        if known:
            found["mfu"] = flops_per_s / CHIPS[known[0]].peak_flops_per_s
        return found


class Clock:
    """Where the seconds of a session go: into steps, or elsewhere."""

    def __init__(self) -> None:
        """Starts it."""
        self._began = time.monotonic()
        self._elsewhere: dict[str, float] = defaultdict(float)

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._began

    @property
    def elsewhere(self) -> Mapping[str, float]:
        """Seconds by what they went into."""
        return dict(self._elsewhere)

    @property
    def goodput(self) -> float:
        """Share of the time that went into steps."""
        return 1 - sum(self._elsewhere.values()) / self.seconds

    @contextmanager
    def outside(
        self, what: str, *, idle_since: Callable[[], float] = lambda: 0.0
    ) -> Iterator[None]:
        """Counts the time within, in which no step is computed, as time outside of steps.

        Args:
            what: It goes into, such as "saving".
            idle_since: Says at the end when the last step was over, by `time.monotonic`; infinity
                if it is not over yet.
        """
        began = time.monotonic()
        try:
            yield
        finally:
            self._elsewhere[what] += max(0.0, time.monotonic() - max(began, idle_since()))


class StepEnds:
    """Notes when the devices are done with the last step, which a loop does not wait for."""

    def __init__(self) -> None:
        """Starts the thread that waits for the devices."""
        self._waiter = ThreadPoolExecutor(max_workers=1)
        self._last: Future[float] = self._waiter.submit(time.monotonic)

    def follow(self, results: Any) -> None:
        """Waits, beside the loop, for the arrays that a step gives."""
        self._last = self._waiter.submit(_ready_at, results)

    def idle_since(self) -> float:
        """Returns when the last step was over, by `time.monotonic`; infinity if it is not yet."""
        return self._last.result() if self._last.done() else inf

    def close(self) -> None:
        """Ends the thread, after the last step."""
        self._waiter.shutdown()


def _ready_at(results: Any) -> float:
    jax.block_until_ready(results)
    return time.monotonic()
