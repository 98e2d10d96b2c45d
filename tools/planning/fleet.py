"""A fleet to be simulated, how its replicas fail, and what became of a run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.stages import ORCHESTRATOR
from tools.planning.step_times import StageTimes

Fleet = Mapping[str, tuple[StageTimes, int]]
"""The times of a replica of each stage and the number of replicas, in the order of a request."""


@dataclass(frozen=True, kw_only=True)
class Failures:
    """How replicas fail.

    Attributes:
        mean_s: Mean time between failures of a replica; None for none by chance.
        replace_s: Time from a failure until the replica serves again.
        losses: Failures that happen besides: stage of some replica that is up, and seconds.
    """

    mean_s: float | None = None
    replace_s: float = 300.0
    losses: Sequence[tuple[str, float]] = ()


NO_FAILURES = Failures()


def chips(replicas: Mapping[str, int]) -> int:
    """Returns the chips of a fleet: one a replica, none for the orchestrator."""
    return sum(count for stage, count in replicas.items() if stage != ORCHESTRATOR)


def resized(replicas: Mapping[str, int], size: Callable[[int], int]) -> dict[str, int]:
    """Returns a fleet with `size` of the replicas of each stage, and equally many orchestrators."""
    return {
        stage: count if stage == ORCHESTRATOR else size(count) for stage, count in replicas.items()
    }


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a run.

    Attributes:
        latency_s: End to end, of the requests that are counted and were answered.
        stage_s: By stage, from a call's first try to its answer, of the same.
        utilisation: By stage, share of the replicas' time at work, until the last request ended.
        filled: By stage, share of slots or of the batch that was taken, of all that time.
        requests: That arrived.
        answered: Of these.
        lost: Of these: failed for good.
        retried: Of these: some call was made again.
        again: Calls that were made again, by stage.
        failures: Replicas that failed.
        events: That were simulated.
    """

    latency_s: np.ndarray
    stage_s: Mapping[str, np.ndarray]
    utilisation: Mapping[str, float]
    filled: Mapping[str, float]
    requests: int
    answered: int
    lost: int
    retried: int
    again: Mapping[str, int]
    failures: int
    events: int

    def percentile_s(self, percent: float) -> float:
        """Returns a percentile of the latency; infinite if no request was answered."""
        return _percentile(self.latency_s, percent)

    def stage_percentile_s(self, stage: str, percent: float) -> float:
        """Returns a percentile of the time in a stage; infinite if no request was answered."""
        return _percentile(self.stage_s[stage], percent)


def _percentile(seconds: np.ndarray, percent: float) -> float:
    return float(np.percentile(seconds, percent)) if len(seconds) else float("inf")
