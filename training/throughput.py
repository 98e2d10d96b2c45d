"""How fast a run learns, and which share of its time and of its chips goes into steps."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

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
    def outside(self, what: str, *, unless: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Counts the time within as time outside of steps.

        Args:
            what: It goes into, such as "saving".
            unless: Says at the end whether steps went on meanwhile, so that nothing was lost.
        """
        began = time.monotonic()
        try:
            yield
        finally:
            if not unless():
                self._elsewhere[what] += time.monotonic() - began
