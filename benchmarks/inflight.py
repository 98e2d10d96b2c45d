"""In-flight against whole-request batching on a simulated accelerator, in virtual time.

`python benchmarks/inflight.py`. Nothing is computed: a step of the simulated device takes the same
time for 1 to 16 rows, and a clock is moved by hand, so minutes of traffic take seconds. Both
peers get the same open-loop Poisson arrivals and the same device. In-flight batching is the
servers' own `services.runtime.scheduling.scheduler`; whole-request batching is modelled on the
policy of `services.runtime.scheduling.batching`: up to 16 requests, which wait for company at most
5 ms while the device is free, run until the last of them has ended.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np

from services.runtime.scheduling.scheduler import SlotScheduler
from services.runtime.scheduling.slots import Failed
from services.runtime.wire.timing import Timed

SLOTS = 16
STEP_S = 0.010  # of 1 to 16 rows
DISPATCH_S = 0.0003  # what the host adds to each dispatch
ADMIT_S = 0.001  # a request's context
MAX_WAIT_S = 0.005
SHORT, LONG = 8, 48
SHORT_SHARE = 0.5
REQUESTS = 20_000
SEED = 2026


@dataclass(frozen=True)
class Decode:
    """A request that is nothing but a number of steps."""

    steps_left: int
    arrival_s: float
    rows: int = 1


@dataclass
class SimulatedDevice:
    """Slots that count steps and move a virtual clock."""

    slots: int = SLOTS
    rows_at_once: int = 1
    device_to_host_s: float = 0.0
    now_s: float = 0.0
    left: dict[int, int] = field(default_factory=dict)
    row_steps: int = 0

    def clock(self) -> float:
        """Returns the virtual time."""
        return self.now_s

    def admit(self, slot: int, request: Decode, state: None = None) -> None:
        """Makes a request's context."""
        self.now_s += ADMIT_S
        self.left[slot] = request.steps_left

    def advance(
        self, steps: int, wanted: Collection[int], resting: Collection[int] = ()
    ) -> dict[int, None]:
        """Takes steps of all rows, in the time of one row."""
        self.now_s += DISPATCH_S + steps * STEP_S
        for slot, left in self.left.items():
            self.row_steps += min(left, steps)
            self.left[slot] = max(0, left - steps)
        return dict.fromkeys(wanted)

    def release(self, slot: int) -> None:
        """Frees a slot."""
        self.left[slot] = 0

    def reset(self) -> None:
        """Frees all slots."""
        self.left.clear()


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        latencies_s: Of each request, in order of arrival.
        span_s: From the first arrival to the last result.
        occupancy: Share of the slots' steps, while the device worked, that were of a request.
    """

    latencies_s: np.ndarray
    span_s: float
    occupancy: float


Peer = Callable[[list[Decode]], Outcome]


def in_flight(requests: list[Decode]) -> Outcome:
    """Runs requests through the servers' scheduler."""
    device, ends_s = SimulatedDevice(), np.zeros(len(requests))
    scheduler: SlotScheduler[Decode, None] = SlotScheduler(
        device, max_queued=2 * len(requests), clock=device.clock
    )
    arrived, busy_s = 0, 0.0
    while arrived < len(requests) or scheduler.busy:
        if not scheduler.busy:
            device.now_s = max(device.now_s, requests[arrived].arrival_s)
        while arrived < len(requests) and requests[arrived].arrival_s <= device.now_s:

            def end(event: Timed[None] | Failed | None, index: int = arrived) -> None:
                ends_s[index] = device.now_s

            scheduler.submit(requests[arrived], end, stream=False)
            arrived += 1
        begin_s = device.now_s
        scheduler.tick()
        busy_s += device.now_s - begin_s
    return outcome(requests, ends_s, device, busy_s)


def whole_requests(requests: list[Decode]) -> Outcome:
    """Runs requests in batches that end together."""
    device, ends_s = SimulatedDevice(), np.zeros(len(requests))
    first, busy_s = 0, 0.0
    while first < len(requests):
        # The batch starts when it is full, or when its first request has waited long enough.
        full_s = requests[min(first + SLOTS, len(requests)) - 1].arrival_s
        start_s = max(device.now_s, min(full_s, requests[first].arrival_s + MAX_WAIT_S))
        last = first
        while last < len(requests) and last - first < SLOTS and requests[last].arrival_s <= start_s:
            last += 1
        device.now_s = start_s
        for slot, request in enumerate(requests[first:last]):
            device.admit(slot, request)
        device.advance(max(request.steps_left for request in requests[first:last]), ())
        ends_s[first:last] = device.now_s
        busy_s += device.now_s - start_s
        first = last
    return outcome(requests, ends_s, device, busy_s)


def outcome(
    requests: list[Decode], ends_s: np.ndarray, device: SimulatedDevice, busy_s: float
) -> Outcome:
    """Sums a run up."""
    arrivals_s = np.array([request.arrival_s for request in requests])
    return Outcome(
        ends_s - arrivals_s,
        float(ends_s.max() - arrivals_s[0]),
        device.row_steps * STEP_S / (SLOTS * busy_s),
    )


def poisson(rate: float, count: int) -> list[Decode]:
    """Returns arrivals of a rate a second, of short and long decodes."""
    random = np.random.default_rng(SEED)
    arrivals_s = np.cumsum(random.exponential(1 / rate, count))
    short = random.random(count) < SHORT_SHARE
    return [
        Decode(SHORT if is_short else LONG, float(arrival_s))
        for is_short, arrival_s in zip(short, arrivals_s, strict=True)
    ]


def saturation(name: str, peer: Peer) -> float:
    """Prints and returns the requests a second a peer serves when they never stop coming."""
    ceiling = SLOTS / (STEP_S * (SHORT_SHARE * SHORT + (1 - SHORT_SHARE) * LONG))
    run = peer(poisson(2 * ceiling, REQUESTS))
    rate = REQUESTS / run.span_s
    print(f"saturation: {name:14} {rate:5.1f} requests/s, slots {run.occupancy:.0%} full")
    return rate


def short_p99(name: str, peer: Peer, rate: float) -> float:
    """Prints a peer's latencies at a load and returns the p99 of its short requests."""
    requests = poisson(rate, REQUESTS)
    latencies_s = peer(requests).latencies_s
    short = np.array([request.steps_left == SHORT for request in requests])
    for steps, chosen in ((LONG, ~short), (SHORT, short)):
        p50, p95, p99 = np.percentile(latencies_s[chosen], (50, 95, 99)) * 1e3
        print(
            f"{rate:5.1f} requests/s: {name:14} {steps:2} steps: "
            f"p50 {p50:4.0f} ms, p95 {p95:4.0f} ms, p99 {p99:4.0f} ms"
        )
    return float(p99)


def main() -> None:
    """Prints throughput at saturation, then latencies at 70% load."""
    print(
        f"simulated device: {STEP_S * 1e3:g} ms a step for 1 to {SLOTS} rows, "
        f"{DISPATCH_S * 1e3:g} ms a dispatch, {ADMIT_S * 1e3:g} ms a context; {REQUESTS} requests, "
        f"{SHORT_SHARE:.0%} of {SHORT} steps, the others of {LONG}; seed {SEED}"
    )
    joining, whole = (
        saturation("in flight", in_flight),
        saturation("whole requests", whole_requests),
    )
    print(f"saturation: ratio {joining / whole:.2f} (target >= 1.5)")
    theirs = short_p99("whole requests", whole_requests, 0.7 * whole)
    same = short_p99("in flight", in_flight, 0.7 * whole)
    own = short_p99("in flight", in_flight, 0.7 * joining)
    print(f"p99 of {SHORT} steps, same load: ratio {same / theirs:.2f} (target <= 0.4)")
    print(f"p99 of {SHORT} steps, each at 70% of its own saturation: ratio {own / theirs:.2f}")


if __name__ == "__main__":
    main()
