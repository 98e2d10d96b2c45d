"""Every metric a server exports: name, unit, labels and what the labels may hold, in one place.

An instrument costs a comparison until `bind` gives it a meter. Its labels hold a few values known
here, never what a caller sends: no number of callers or prompts makes a new series.

Source: OpenTelemetry, "Metrics semantic conventions" (names and units) and "Prometheus and
OpenMetrics compatibility" (how Prometheus calls them).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal, TypeAlias, TypeVar

import grpc
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

Reason: TypeAlias = Literal["queue_full", "too_late", "stopping", "device_fails", "no_memory"]
Source: TypeAlias = Literal["compiler", "cache"]
Direction: TypeAlias = Literal["receive", "transmit"]
Copy: TypeAlias = Literal["first", "second", "neither"]
Refusal = TypeVar("Refusal", bound=Exception)

STAGES = ("orchestrator", "text_encoder", "tokenizer", "base", "superres")
EDITS = ("inpaint", "outpaint", "mask_free_edit", "vary")  # of the orchestrator's requests
KINDS = ("generate", "encode", "decode", "resample", "get_status", *EDITS)
OUTCOMES = tuple(code.name for code in grpc.StatusCode)
REASONS: tuple[Reason, ...] = ("queue_full", "too_late", "stopping", "device_fails", "no_memory")
SOURCES: tuple[Source, ...] = ("compiler", "cache")
DIRECTIONS: tuple[Direction, ...] = ("receive", "transmit")
COPIES: tuple[Copy, ...] = ("first", "second", "neither")
# From a text's milliseconds to an edit's minutes; the SLO's 2 s is one of them.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0)
SUFFIXES = {"s": "_seconds", "By": "_bytes"}  # of Prometheus; counts of things have none


@dataclass(frozen=True)
class Load:
    """How busy a stage is.

    Attributes:
        slots: Requests it computes at a time.
        active: Requests it computes now.
        places: Requests that may wait.
        queued: Requests that wait.
        queued_steps: Steps times rows of those who wait; of a stage that takes no steps, requests.
    """

    slots: int
    active: int
    places: int
    queued: int
    queued_steps: int


@dataclass(eq=False)
class Instrument:
    """A metric.

    Attributes:
        name: As OpenTelemetry calls it.
        unit: In UCUM, such as "s" or "{request}".
        description: One sentence.
        labels: What each label may hold, besides `stage`, which all have.
    """

    name: str
    unit: str
    description: str
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    _stage: str = field(default="", init=False)
    _bound: Any = field(default=None, init=False)  # what records, of the meter's own type

    @property
    def prometheus_names(self) -> tuple[str, ...]:
        """Its series, as Prometheus calls them."""
        return (self.name.replace(".", "_") + SUFFIXES.get(self.unit, ""),)

    def bind(self, meter: Meter, stage: str) -> None:
        """Makes it record.

        Args:
            meter: What makes the instrument.
            stage: Whose process it is, one of STAGES.
        """
        self._stage, self._bound = stage, self._made(meter)

    def unbind(self) -> None:
        """Ends that."""
        self._bound = None

    def _made(self, meter: Meter) -> Any:
        raise NotImplementedError


@dataclass(eq=False)
class Counter(Instrument):
    """A sum that only grows. It starts at 0 for each value of its label, so that none is missed."""

    @property
    def prometheus_names(self) -> tuple[str, ...]:
        """Its series, as Prometheus calls them."""
        return (f"{super().prometheus_names[0]}_total",)

    def bind(self, meter: Meter, stage: str) -> None:
        """Makes it record; see `Instrument.bind`."""
        super().bind(meter, stage)
        for values in product(*self.labels.values()):
            self.add(0, **dict(zip(self.labels, values, strict=True)))

    def add(self, amount: float, **labels: str) -> None:
        """Adds to it, if anything records."""
        if self._bound is not None:
            self._bound.add(amount, {"stage": self._stage, **labels})

    def _made(self, meter: Meter) -> Any:
        return meter.create_counter(self.name, self.unit, self.description)


@dataclass(eq=False)
class Histogram(Instrument):
    """How often a value fell where."""

    @property
    def prometheus_names(self) -> tuple[str, ...]:
        """Its series, as Prometheus calls them."""
        (name,) = super().prometheus_names
        return f"{name}_bucket", f"{name}_sum", f"{name}_count"

    def record(self, value: float, *, trace: SpanContext | None = None, **labels: str) -> None:
        """Takes note of a value, if anything records.

        Args:
            value: In the metric's unit.
            trace: The span that it is about, which becomes an exemplar if it is sampled.
            labels: What each label holds.
        """
        if self._bound is not None:
            about = None if trace is None else set_span_in_context(NonRecordingSpan(trace))
            self._bound.record(value, {"stage": self._stage, **labels}, context=about)

    def _made(self, meter: Meter) -> Any:
        return meter.create_histogram(
            self.name, self.unit, self.description, explicit_bucket_boundaries_advisory=SECONDS
        )


@dataclass(eq=False)
class Gauge(Instrument):
    """What is asked for when somebody looks.

    Attributes:
        read: Reads it from a stage's load.
    """

    read: Callable[[Load], int] = field(kw_only=True)

    def _made(self, meter: Meter) -> Any:
        return meter.create_observable_gauge(
            self.name, [self._observe], self.unit, self.description
        )

    def _observe(self, options: CallbackOptions) -> Iterable[Observation]:
        for load in list(_loads):
            yield Observation(self.read(load()), {"stage": self._stage})


REQUESTS = Histogram(
    "muse.request.duration",
    "s",
    "From a call's arrival at a server to its end, by what was asked and its gRPC status.",
    {"kind": KINDS, "outcome": OUTCOMES},
)
WAITS = Histogram(
    "muse.queue.duration", "s", "From a request's arrival at a stage to the start of its compute."
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
    "Work that waits: steps times rows; requests where a stage takes no steps.",
    read=lambda load: load.queued_steps,
)
PLACES = Gauge(
    "muse.queue.limit", "{request}", "Requests that may wait.", read=lambda load: load.places
)
ACTIVE = Gauge(
    "muse.slots.active",
    "{slot}",
    "Slots in use; of a stage that batches, requests of the batch under way.",
    read=lambda load: load.active,
)
SLOTS = Gauge(
    "muse.slots.limit",
    "{slot}",
    "Slots there are, or the largest batch.",
    read=lambda load: load.slots,
)
REFUSALS = Counter(
    "muse.admission.refusals",
    "{request}",
    "Requests that were not taken, by why.",
    {"reason": REASONS},
)
DEVICE = Counter(
    "muse.device.duration", "s", "Time the device thread spent computing: what a request costs."
)
STEPS = Counter("muse.device.steps", "{step}", "Steps times rows computed for requests.")
PROGRAMS = Counter(
    "muse.programs",
    "{program}",
    "Programs made ready, by the compiler or from the cache of compiled programs.",
    {"source": SOURCES},
)
COMPILING = Counter(
    "muse.programs.duration",
    "s",
    "Time spent making programs ready.",
    {"source": SOURCES},
)
IO = Counter(
    "muse.io",
    "By",
    "Bytes of the messages of calls, before compression.",
    {"direction": DIRECTIONS},
)
HEDGES = Counter(
    "muse.hedges",
    "{call}",
    "Calls of a stage that were sent to a second replica too, by whose answer came first.",
    {"target": STAGES[1:], "answer": COPIES},
)
INSTRUMENTS: tuple[Instrument, ...] = (
    *(REQUESTS, WAITS, QUEUED, QUEUED_STEPS, PLACES, ACTIVE, SLOTS, REFUSALS),
    *(DEVICE, STEPS, PROGRAMS, COMPILING, IO, HEDGES),
)
_loads: list[Callable[[], Load]] = []


def bind(meter: Meter, stage: str) -> None:
    """Makes all instruments of the process record; once a process.

    Args:
        meter: What makes them.
        stage: Whose process it is, one of STAGES.
    """
    for instrument in INSTRUMENTS:
        instrument.bind(meter, stage)


def unbind() -> None:
    """Ends that."""
    for instrument in INSTRUMENTS:
        instrument.unbind()


def watch(load: Callable[[], Load]) -> Callable[[], None]:
    """Has the gauges ask for a load; any thread may.

    Returns:
        What to call when it is no longer to be asked for.
    """
    _loads.append(load)
    return lambda: _loads.remove(load)


def refused(reason: Reason, error: Refusal) -> Refusal:
    """Counts a refusal and returns it, for `raise`."""
    REFUSALS.add(1, reason=reason)
    return error
