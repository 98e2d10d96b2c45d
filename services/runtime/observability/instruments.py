"""Every metric of the servers: name, unit, labels, and the values of the labels.

An instrument costs one comparison until `bind` gives it a meter. Values of labels never come from a
caller, so the number of series is bounded.

Source: OpenTelemetry, "Metrics semantic conventions" (names and units) and "Prometheus and
OpenMetrics compatibility" (how Prometheus calls them).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar, get_args

import grpc
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

Reason: TypeAlias = Literal["queue_full", "too_late", "stopping", "device_fails", "no_memory"]
Source: TypeAlias = Literal["compiler", "cache"]
Direction: TypeAlias = Literal["receive", "transmit"]
Copy: TypeAlias = Literal["first", "second", "neither"]
Refusal = TypeVar("Refusal", bound=Exception)

OUTCOMES = tuple(code.name for code in grpc.StatusCode)
COPIES: tuple[Copy, ...] = get_args(Copy)
# From a text's milliseconds to an edit's minutes; the SLO's 2 s is one of them.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0)
SUFFIXES = {"s": "_seconds", "By": "_bytes"}  # of Prometheus; counts of things have none


INSTRUMENTS: list["Instrument"] = []  # every metric below


@dataclass(frozen=True)
class Load:
    """Current load of a stage.

    Attributes:
        slots: Requests it computes at a time.
        active: Requests it computes now.
        capacity: Requests that may wait.
        queued: Requests that wait.
        queued_steps: Steps times rows of the waiting requests; their number in a stage without
            steps.
    """

    slots: int
    active: int
    capacity: int
    queued: int
    queued_steps: int


@dataclass(eq=False)
class Instrument:
    """A metric.

    Attributes:
        name: OpenTelemetry name.
        unit: In UCUM, such as "s" or "{request}".
        description: One sentence.
        labels: Values of each label, () for a label whose values the protos or the list of stages
            define; every metric also has the label `stage`.
    """

    name: str
    unit: str
    description: str
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    _series: ClassVar[tuple[str, ...]] = ("",)  # endings of its names in Prometheus
    _stage: str = field(default="", init=False)
    _bound: Any = field(default=None, init=False)  # the meter's own instrument

    def __post_init__(self) -> None:
        INSTRUMENTS.append(self)

    @property
    def prometheus_names(self) -> tuple[str, ...]:
        """Names of its series in Prometheus."""
        name = self.name.replace(".", "_") + SUFFIXES.get(self.unit, "")
        return tuple(name + series for series in self._series)

    def bind(self, meter: Meter, stage: str) -> None:
        """Starts recording, for the stage of this process."""
        self._stage, self._bound = stage, self._create(meter)

    def unbind(self) -> None:
        """Stops recording."""
        self._bound = None

    def _create(self, meter: Meter) -> Any:
        raise NotImplementedError


@dataclass(eq=False)
class Counter(Instrument):
    """A sum that only grows; each value of `labels` starts at an explicit 0 for exact rates."""

    _series = ("_total",)

    def bind(self, meter: Meter, stage: str) -> None:
        """Starts recording; see `Instrument.bind`."""
        super().bind(meter, stage)
        for values in product(*self.labels.values()):
            self.add(0, **dict(zip(self.labels, values, strict=True)))

    def add(self, amount: float, **labels: str) -> None:
        """Adds an amount, if bound."""
        if self._bound is not None:
            self._bound.add(amount, {"stage": self._stage, **labels})

    def _create(self, meter: Meter) -> Any:
        return meter.create_counter(self.name, self.unit, self.description)


@dataclass(eq=False)
class Histogram(Instrument):
    """A distribution of values."""

    _series = ("_bucket", "_sum", "_count")

    def record(self, value: float, *, trace: SpanContext | None = None, **labels: str) -> None:
        """Records a value, if bound; a sampled `trace` becomes its exemplar."""
        if self._bound is not None:
            context = None if trace is None else set_span_in_context(NonRecordingSpan(trace))
            self._bound.record(value, {"stage": self._stage, **labels}, context=context)

    def _create(self, meter: Meter) -> Any:
        return meter.create_histogram(
            self.name, self.unit, self.description, explicit_bucket_boundaries_advisory=SECONDS
        )


@dataclass(eq=False)
class Gauge(Instrument):
    """A value that is read at each export.

    Attributes:
        read: Reads the value from a stage's load.
    """

    read: Callable[[Load], int] = field(kw_only=True)

    def _create(self, meter: Meter) -> Any:
        return meter.create_observable_gauge(
            self.name, [self._observe], self.unit, self.description
        )

    def _observe(self, options: CallbackOptions) -> Iterable[Observation]:
        for load in list(_loads):
            yield Observation(self.read(load()), {"stage": self._stage})


REQUESTS = Histogram(
    "muse.request.duration",
    "s",
    "Time from a call's arrival at a server to its end, by kind of request and gRPC status.",
    {"kind": (), "outcome": OUTCOMES},
)
WAITS = Histogram(
    "muse.queue.duration",
    "s",
    "Time from a request's arrival at a stage, or from the loss of its slot, to the start of its "
    "compute.",
)
QUEUED = Gauge(
    "muse.queue.requests",
    "{request}",
    "Requests that wait for a slot or a batch.",
    read=lambda load: load.queued,
)
QUEUED_STEPS = Gauge(
    "muse.queue.steps",
    "{step}",
    "Work that waits: steps times rows; the number of requests in a stage without steps.",
    read=lambda load: load.queued_steps,
)
CAPACITY = Gauge(
    "muse.queue.limit", "{request}", "Requests that may wait.", read=lambda load: load.capacity
)
ACTIVE = Gauge(
    "muse.slots.active",
    "{slot}",
    "Slots in use; in a stage that batches, the requests of the running batch.",
    read=lambda load: load.active,
)
SLOTS = Gauge(
    "muse.slots.limit",
    "{slot}",
    "Number of slots, or the largest batch.",
    read=lambda load: load.slots,
)
REFUSALS = Counter(
    "muse.admission.refusals",
    "{request}",
    "Refused requests, by reason.",
    {"reason": get_args(Reason)},
)
DEVICE = Counter("muse.device.duration", "s", "Time the device thread spent computing.")
STEPS = Counter("muse.device.steps", "{step}", "Steps times rows computed for requests.")
PROGRAMS = Counter(
    "muse.programs",
    "{program}",
    "Programs loaded, from the compiler or from the cache of compiled programs.",
    {"source": get_args(Source)},
)
COMPILING = Counter(
    "muse.programs.duration",
    "s",
    "Time spent compiling programs or reading them from the cache.",
    {"source": get_args(Source)},
)
IO = Counter(
    "muse.io",
    "By",
    "Bytes of the messages of calls, before compression.",
    {"direction": get_args(Direction)},
)
HEDGES = Counter(
    "muse.hedges",
    "{call}",
    "Calls that were sent to a second replica too, by the copy that was answered first.",
    {"target": (), "answer": COPIES},
)
_loads: list[Callable[[], Load]] = []


def observe(load: Callable[[], Load]) -> Callable[[], None]:
    """Makes the gauges read a stage's load, from any thread; returns a function that ends it."""
    _loads.append(load)
    return lambda: _loads.remove(load)


def count_refusal(reason: Reason, error: Refusal) -> Refusal:
    """Counts a refused request and returns its error, for `raise`."""
    REFUSALS.add(1, reason=reason)
    return error
