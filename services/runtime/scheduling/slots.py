"""What a scheduler of slots speaks of: jobs, the device that runs them, what is told of them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from opentelemetry.trace import SpanContext

from services.runtime.observability.span_attributes import Attributes
from services.runtime.wire.timing import Timed


class Stepped(Protocol):
    """A job whose work is known before it begins."""

    @property
    def steps_left(self) -> int:
        """Steps from its start to its end; 0 if there is nothing to do."""

    @property
    def rows(self) -> int:
        """Rows that one of its steps computes: 1, or 2 with guidance."""


Job = TypeVar("Job", bound=Stepped)
State = TypeVar("State")
JobIn = TypeVar("JobIn", bound=Stepped, contravariant=True)
StateOut = TypeVar("StateOut", covariant=True)


class SlotDevice(Protocol[JobIn, StateOut]):
    """What computes: a number of slots that take steps together. One thread uses it."""

    @property
    def slots(self) -> int:
        """Jobs that run at a time."""

    @property
    def handed_out_s(self) -> float:
        """Seconds of the last `advance` in which it fetched the wanted states from the device."""

    def admit(self, slot: int, job: JobIn) -> None:
        """Puts a job into a free slot; it takes part in the next step."""

    def advance(self, steps: int, wanted: Collection[int]) -> Mapping[int, StateOut]:
        """Takes so many steps of every row that has some left; returns the wanted slots' states."""

    def release(self, slot: int) -> None:
        """Frees the slot of a job that has not ended; one that has ended frees its own."""

    def reset(self) -> None:
        """Makes all slots clean and free after a failure, and proves with a step that it works."""


@dataclass(frozen=True)
class Failed:
    """The end of a request whose compute raised.

    Attributes:
        failure: Names the log's record of it.
    """

    failure: str


@dataclass(frozen=True)
class HandedBack(Generic[State]):
    """The end of a request that this process gives up, for it stops or fails; another may go on.

    Attributes:
        state: How far it came; None if it never got a slot.
    """

    state: State | None


@dataclass(eq=False)
class Ticket(Generic[Job, State]):
    """A request from its arrival to its end.

    Attributes:
        job: What to run.
        tell: Called on the device thread: with the state after each step, if watched, and at the
            end with the timed result, the failure, or how far it came.
        watched: Whether each step is told.
        arrival_s: When it came.
        left: Steps it has left.
        trace: The span it belongs to, if it is traced.
        start_s: When it got its slot; None before.
        prefill_s: Seconds that putting it into its slot took, as far as the host waited for them.
        device_s: Its share of the device so far.
        parts: What it took part in, if it is traced.
        abandoned: Nobody waits for it any more.
    """

    job: Job
    tell: Callable[[State | Timed[State] | Failed | HandedBack[State]], None]
    watched: bool
    arrival_s: float
    left: int
    trace: SpanContext | None = None
    start_s: float | None = None
    prefill_s: float = 0.0
    device_s: float = 0.0
    parts: "list[Part]" = field(default_factory=list)
    abandoned: bool = False

    @property
    def queue_s(self) -> float | None:
        """How long it waited for its slot; None while it does."""
        return None if self.start_s is None else self.start_s - self.arrival_s


@dataclass(frozen=True, kw_only=True)
class Dispatch(Generic[Job, State]):
    """One run of the device that is over.

    Attributes:
        begin_s: When it began.
        end_s: When the states were there.
        handed_out_s: Seconds of that, at the end, in which they were fetched.
        steps: It took of every ticket.
        tickets: Who was in it.
    """

    begin_s: float
    end_s: float
    handed_out_s: float
    steps: int
    tickets: Sequence[Ticket[Job, State]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a traced request remembers of a dispatch; it holds on to nobody else in it.

    Attributes:
        begin_s: When the dispatch began.
        stepped_s: When its steps were taken.
        end_s: When the states were fetched.
        batch: The span of the whole.
        attributes: What is said of the request's part.
    """

    begin_s: float
    stepped_s: float
    end_s: float
    batch: SpanContext
    attributes: Attributes
