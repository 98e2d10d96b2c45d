"""Timeline of an image: its calls of stages, and the gaps between them."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from muse.common.v1.stage_pb2 import StageCall, StageTiming
from muse.orchestrator.v1.orchestrator_pb2 import GeneratedImage

from services.stages import STAGES


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """An answered call of a stage; compared by identity.

    Attributes:
        timing: Timing of the call by phase.
        begun_s: time.monotonic() before the call.
        ended_s: time.monotonic() after the call.
    """

    timing: StageTiming
    begun_s: float
    ended_s: float


def timed(timing: StageTiming, begun_s: float) -> Call:
    """Returns a call that ends now.

    Of the caller's wait since `begun_s`, what the stage did not measure becomes transfer_s.
    """
    ended_s, full = time.monotonic(), StageTiming()
    full.CopyFrom(timing)
    full.transfer_s = max(0.0, ended_s - begun_s - timing.queue_s - timing.compute_s)
    return Call(timing=full, begun_s=begun_s, ended_s=ended_s)


@dataclass(frozen=True)
class Timeline:
    """Calls that were made for one image so far.

    Attributes:
        arrived_s: time.monotonic() when the request arrived.
        calls: Calls that the image waited for, one after the other.
        concurrent: Calls that ran while the image waited for one of `calls`.
    """

    arrived_s: float
    calls: list[Call] = field(default_factory=list)
    concurrent: list[Call] = field(default_factory=list)

    def fork(self) -> "Timeline":
        """Returns a copy that continues independently."""
        return Timeline(self.arrived_s, list(self.calls), list(self.concurrent))

    def add(self, calls: Iterable[Call]) -> None:
        """Adds calls that were made concurrently: the image waited for the last one to end."""
        *others, last = sorted(calls, key=lambda call: call.ended_s)
        self.calls.append(last)
        self.concurrent.extend(others)

    def overhead_s(self, now_s: float) -> float:
        """Returns the seconds from the arrival to `now_s` during which no call ran."""
        overhead_s, free_s = 0.0, self.arrived_s
        for call in self.calls:
            overhead_s += max(0.0, call.begun_s - free_s)
            free_s = call.ended_s
        return overhead_s + max(0.0, now_s - free_s)

    def timings(self) -> list[StageTiming]:
        """Returns the timings summed by stage, in the order of the pipeline."""
        sums: dict[str, StageTiming] = {}
        for call in (*self.calls, *self.concurrent):
            stage, timing = call.timing.stage, call.timing
            total = sums.setdefault(stage, StageTiming(stage=stage))
            total.device_s += timing.device_s
        for call in self.calls:
            total, timing = sums[call.timing.stage], call.timing
            total.queue_s += timing.queue_s
            total.compute_s += timing.compute_s
            total.transfer_s += timing.transfer_s
        return [sums[stage] for stage in STAGES if stage in sums]

    def write_to(self, image: GeneratedImage) -> None:
        """Sets the timings of an image's message, which is sent now."""
        now_s = time.monotonic()
        image.timings.extend(self.timings())
        image.wall_s, image.overhead_s = now_s - self.arrived_s, self.overhead_s(now_s)
        concurrent = set(self.concurrent)
        for call in sorted((*self.calls, *self.concurrent), key=lambda call: call.ended_s):
            start_s = max(0.0, call.begun_s - self.arrived_s)
            image.calls.append(
                StageCall(timing=call.timing, start_s=start_s, concurrent=call in concurrent)
            )
