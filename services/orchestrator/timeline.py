"""Where the time of a picture went: the calls of stages made for it, and the gaps between them."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from muse.common.v1.stage_pb2 import StageCall, StageTiming
from muse.orchestrator.v1.orchestrator_pb2 import GeneratedImage

from services.stages import STAGES


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One call of a stage that was answered; told apart from others by identity.

    Attributes:
        timing: Where its time went.
        begun_s: time.monotonic() before it.
        ended_s: The same after it.
    """

    timing: StageTiming
    begun_s: float
    ended_s: float


def timed(timing: StageTiming, begun_s: float) -> Call:
    """Returns a call that ends now.

    Args:
        timing: What the stage measured; what the caller waited beyond that is transfer.
        begun_s: time.monotonic() before the call.
    """
    ended_s, full = time.monotonic(), StageTiming()
    full.CopyFrom(timing)
    full.transfer_s = max(0.0, ended_s - begun_s - timing.queue_s - timing.compute_s)
    return Call(timing=full, begun_s=begun_s, ended_s=ended_s)


@dataclass(frozen=True)
class Timeline:
    """One picture's calls so far.

    Attributes:
        arrived_s: time.monotonic() when its request came.
        calls: Those it waited for, one after the other.
        beside: Those that ran beside one of them.
    """

    arrived_s: float
    calls: list[Call] = field(default_factory=list)
    beside: list[Call] = field(default_factory=list)

    def fork(self) -> "Timeline":
        """Returns one that goes on from here by itself."""
        return Timeline(self.arrived_s, list(self.calls), list(self.beside))

    def spent(self, calls: Iterable[Call]) -> None:
        """Adds calls that were made at once: the picture waited for the last of them to end."""
        *others, last = sorted(calls, key=lambda call: call.ended_s)
        self.calls.append(last)
        self.beside.extend(others)

    def overhead_s(self, now_s: float) -> float:
        """Returns the seconds from the arrival to `now_s` that were spent in no call."""
        overhead_s, free_s = 0.0, self.arrived_s
        for call in self.calls:
            overhead_s += max(0.0, call.begun_s - free_s)
            free_s = call.ended_s
        return overhead_s + max(0.0, now_s - free_s)

    def timings(self) -> list[StageTiming]:
        """Returns the sums over all calls, stage by stage, in the order of the pipeline."""
        sums: dict[str, StageTiming] = {}
        for call in (*self.calls, *self.beside):
            stage, timing = call.timing.stage, call.timing
            total = sums.setdefault(stage, StageTiming(stage=stage))
            total.device_s += timing.device_s
        for call in self.calls:
            total, timing = sums[call.timing.stage], call.timing
            total.queue_s += timing.queue_s
            total.compute_s += timing.compute_s
            total.transfer_s += timing.transfer_s
        return [sums[stage] for stage in STAGES if stage in sums]

    def tell(self, image: GeneratedImage) -> None:
        """Writes into a picture's message, which is handed out now, where its time went."""
        now_s = time.monotonic()
        image.timings.extend(self.timings())
        image.wall_s, image.overhead_s = now_s - self.arrived_s, self.overhead_s(now_s)
        beside = set(self.beside)
        for call in sorted((*self.calls, *self.beside), key=lambda call: call.ended_s):
            start_s = max(0.0, call.begun_s - self.arrived_s)
            image.calls.append(
                StageCall(timing=call.timing, start_s=start_s, concurrent=call in beside)
            )
