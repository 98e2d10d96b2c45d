"""Replicas by arithmetic: enough for the work, and enough that few wait long for a slot.

Every slot, or place in a batch, of every replica is taken for a server of an M/M/c queue whose
service takes as long as in full company. That is an estimate to begin with and to explain: the
simulation decides.

Source: Erlang's C formula, by the recursion of his B formula (Gross et al., "Fundamentals of
Queueing Theory", section 2.3).
"""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tools.bench.arrivals import Kind
from tools.planning.demand import Demand
from tools.planning.fleet import chips
from tools.planning.step_times import SlotTimes, StageTimes

PERCENT = 99
LATE = 0.01  # share of requests that may be later than the target
WORTH_IT = 1.02  # a larger batch has to do so much more a second, or it is not tried


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """What the arithmetic says.

    Attributes:
        times: Of a replica with the size of batch taken, by stage.
        replicas: By stage.
        alone_s: p99 over the mix of a request alone in the fleet.
        in_company_s: The same in full slots and batches, but without a queue.
    """

    times: Mapping[str, StageTimes]
    replicas: Mapping[str, int]
    alone_s: float
    in_company_s: float


def erlang_c(servers: int, offered: float) -> float:
    """Returns the probability that a request waits in an M/M/c queue with c `servers`.

    `offered` is requests a second times seconds of service, below c.
    """
    blocked = 1.0
    for each in range(1, servers + 1):
        blocked = offered * blocked / (each + offered * blocked)
    return blocked / (1 - offered / servers * (1 - blocked))


def late_share(servers: int, rate: float, service_s: float, wait_s: float) -> float:
    """Returns the share of requests that wait longer in an M/M/c queue; 1 without a balance."""
    offered = rate * service_s
    if offered >= servers:
        return 1.0
    return erlang_c(servers, offered) * math.exp(-(servers - offered) / service_s * wait_s)


def service_times(
    stage: str, times: StageTimes, demand: Demand, *, present: int = 1
) -> dict[Kind, float]:
    """Returns what a stage takes of each kind, without a queue.

    Args:
        stage: Its name.
        times: Of a replica.
        demand: What is asked.
        present: Requests in slots or in the batch, itself as well; the others are of its kind in a
            batch, and have guidance in slots if some kind has it.
    """
    others_guided = (present - 1) * any(work.guided for work in demand.works.values())
    found = {}
    for kind, work in demand.works.items():
        amount = work.amounts[stage]
        if isinstance(times, SlotTimes):
            guided = others_guided + work.guided
            found[kind] = times.residence_s(amount, present=present, guided=guided)
        else:
            found[kind] = times.max_wait_s + times.seconds(amount * present)
    return found


def floor_s(options: Mapping[str, Sequence[StageTimes]], demand: Demand) -> float:
    """Returns the p99 over the mix of a request alone, each stage with the size that is best so."""
    fastest = [
        min((service_times(stage, each, demand) for each in found), key=demand.mean)
        for stage, found in options.items()
    ]
    return _p99_of_sum(fastest, demand)


def size(
    options: Mapping[str, Sequence[StageTimes]], demand: Demand, p99_s: float
) -> Sizing | None:
    """Chooses sizes of batch and numbers of replicas, with the fewest chips that seem to do.

    Returns:
        None if no choice leaves time to wait in a queue before `p99_s`.
    """
    worth = {stage: _worth_trying(stage, found, demand) for stage, found in options.items()}
    sizings = (
        _sized(dict(zip(worth, chosen, strict=True)), demand, p99_s)
        for chosen in itertools.product(*worth.values())
    )
    return min(
        (each for each in sizings if each is not None),
        key=lambda each: (chips(each.replicas), each.in_company_s),
        default=None,
    )


def _worth_trying(stage: str, options: Sequence[StageTimes], demand: Demand) -> list[StageTimes]:
    """Leaves out sizes that only make everybody wait for more company."""
    kept: list[StageTimes] = []
    best = 0.0
    for times in options:
        rate = times.together / demand.mean(_full_s(stage, times, demand))
        if rate > WORTH_IT * best:
            kept.append(times)
            best = rate
    return kept


def _sized(times: Mapping[str, StageTimes], demand: Demand, p99_s: float) -> Sizing | None:
    full = {stage: _full_s(stage, each, demand) for stage, each in times.items()}
    taken_s = _p99_of_sum(full.values(), demand)
    slack_s = p99_s - taken_s
    if slack_s <= 0:
        return None
    means = {stage: demand.mean(of_each) for stage, of_each in full.items()}
    replicas = {}
    for stage, each in times.items():
        wait_s = slack_s * means[stage] / sum(means.values())
        replicas[stage] = _least_replicas(each.together, demand.rate, means[stage], wait_s)
    alone = [service_times(stage, each, demand) for stage, each in times.items()]
    return Sizing(
        times=times,
        replicas=replicas,
        alone_s=_p99_of_sum(alone, demand),
        in_company_s=taken_s,
    )


def _full_s(stage: str, times: StageTimes, demand: Demand) -> dict[Kind, float]:
    return service_times(stage, times, demand, present=times.together)


def _least_replicas(together: int, rate: float, service_s: float, wait_s: float) -> int:
    count = math.floor(rate * service_s / together) + 1
    while late_share(count * together, rate, service_s, wait_s) > LATE:
        count += 1
    return count


def _p99_of_sum(stages: Collection[Mapping[Kind, float]], demand: Demand) -> float:
    sums = {kind: sum(each[kind] for each in stages) for kind in demand.works}
    return demand.quantile(sums, PERCENT / 100)
