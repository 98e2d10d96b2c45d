"""A fleet to be simulated, how its replicas fail, and what became of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.stages import ORCHESTRATOR
from tools.planning.step_times import StageTimes


@dataclass(frozen=True, kw_only=True)
class FleetStage:
    """The replicas of a stage.

    Attributes:
        name: Of the stage.
        times: Of each replica.
        replicas: How many.
    """

    name: str
    times: StageTimes
    replicas: int


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A replica that fails at a time.

    Attributes:
        stage: Its name.
        at_s: When.
    """

    stage: str
    at_s: float


@dataclass(frozen=True, kw_only=True)
class Failures:
    """How replicas fail.

    Attributes:
        mean_s: Mean time between failures of a replica; None for none by chance.
        replace_s: Time from a failure until the replica serves again.
        losses: Failures that happen besides, each of some replica that is up.
    """

    mean_s: float | None = None
    replace_s: float = 300.0
    losses: Sequence[Loss] = ()


NO_FAILURES = Failures()


def chips(replicas: Mapping[str, int]) -> int:
    """Returns the chips of a fleet: one a replica, none for the orchestrator."""
    return sum(count for stage, count in replicas.items() if stage != ORCHESTRATOR)


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
