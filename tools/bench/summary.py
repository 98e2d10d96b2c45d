"""Summary of a run: percentiles, goodput, refusals, occupancy."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import numpy as np
from muse.common.v1.stage_pb2 import StageTiming

from tools.bench.load import OK, Outcome

PERCENTILES = (50, 95, 99)
REFUSED = grpc.StatusCode.RESOURCE_EXHAUSTED.name


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One run at one offered load. Times are p50, p95 and p99; [] without a value.

    Attributes:
        goodput_per_s: Requests answered a second, from the first arrival to the last end.
        codes: Number of requests by gRPC status.
        latency_s: Of answered requests, by kind, and "all".
        refusal_s: Until a RESOURCE_EXHAUSTED refusal.
        queue_s: By stage, as compute_s.
        occupancy: Mean number of requests in compute, by stage.
    """

    offered_per_s: float
    goodput_per_s: float
    requests: int
    codes: dict[str, int]
    latency_s: dict[str, list[float]]
    refusal_s: list[float]
    queue_s: dict[str, list[float]]
    compute_s: dict[str, list[float]]
    occupancy: dict[str, float]


def summarise(outcomes: Sequence[Outcome], *, seconds: float) -> Summary:
    """Summarises a run whose requests arrived in so many seconds.

    Raises:
        ValueError: there is no outcome.
    """
    if not outcomes:
        raise ValueError("no request arrived in that time: ask for a higher rate or more seconds")
    answered = [outcome for outcome in outcomes if outcome.code == OK]
    span_s = max(seconds, *(outcome.at_s + outcome.latency_s for outcome in outcomes))
    kinds = {outcome.kind for outcome in outcomes}
    latencies = {"all": [outcome.latency_s for outcome in answered]}
    if len(kinds) > 1:
        for kind in sorted(kinds):
            latencies[kind] = [each.latency_s for each in answered if each.kind == kind]
    rows: dict[str, list[StageTiming]] = defaultdict(list)
    for row in (row for each in answered for row in each.timings):
        rows[row.stage].append(row)
    return Summary(
        offered_per_s=len(outcomes) / seconds,
        goodput_per_s=len(answered) / span_s,
        requests=len(outcomes),
        codes=dict(Counter(outcome.code for outcome in outcomes)),
        latency_s={name: _percentiles(values) for name, values in latencies.items()},
        refusal_s=_percentiles([each.latency_s for each in outcomes if each.code == REFUSED]),
        queue_s={name: _percentiles([row.queue_s for row in of]) for name, of in rows.items()},
        compute_s={name: _percentiles([row.compute_s for row in of]) for name, of in rows.items()},
        occupancy={name: sum(row.compute_s for row in of) / span_s for name, of in rows.items()},
    )


def _percentiles(values: Sequence[float]) -> list[float]:
    """Returns p50, p95 and p99; [] without values."""
    return [float(value) for value in np.percentile(values, PERCENTILES)] if values else []
