"""Types of slot scheduling: the request, the device, and the state of a request over its life."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from opentelemetry.trace import SpanContext

from services.runtime.observability.span_attributes import Attributes
from services.runtime.wire.caller import ANONYMOUS, Caller
from services.runtime.wire.timing import Timed


class DecodeRequest(Protocol):
    """A request whose number of steps is known before it starts."""

    @property
    def steps_left(self) -> int:
        """Steps from the start to the end; 0 if there is nothing to do."""

    @property
    def rows(self) -> int:
        """Rows that one step computes: 1, or 2 with guidance."""


Request = TypeVar("Request", bound=DecodeRequest)
State = TypeVar("State")
RequestIn = TypeVar("RequestIn", bound=DecodeRequest, contravariant=True)


class SlotDevice(Protocol[RequestIn, State]):
    """A device with a number of slots that take steps together. One thread uses it."""

    @property
    def slots(self) -> int:
        """Requests that run at a time."""

    @property
    def rows_at_once(self) -> int:
        """Requests whose step takes as long as that of one."""

    @property
    def device_to_host_s(self) -> float:
        """Seconds that the last `advance` spent fetching the wanted states from the device."""

    def admit(self, slot: int, request: RequestIn, state: State | None = None) -> None:
        """Puts a request into a free slot; it takes part in the next step.

        `state` is what `advance` returned of a request that lost its slot: it goes on from there.
        """

    def advance(
        self, steps: int, wanted: Collection[int], resting: Collection[int] = ()
    ) -> Mapping[int, State]:
        """Takes steps in every slot that has steps left, but for the resting ones.

        Returns the states of the wanted slots.
        """

    def release(self, slot: int) -> None:
        """Frees the slot of an unfinished request; a finished request frees its slot itself."""

    def reset(self) -> None:
        """Clears and frees all slots after a failure, and runs a step to prove that it works."""


@dataclass(frozen=True)
class Failed:
    """Last event of a request whose compute raised an exception.

    Attributes:
        failure: Id of the failure in the log.
    """

    failure: str


@dataclass(frozen=True)
class Preempted(Generic[State]):
    """Last event of a request that this process gives up; another replica may resume it.

    Attributes:
        state: State to resume from; None if the request never had a slot.
    """

    state: State | None


Event: TypeAlias = State | Timed[State] | Failed | Preempted[State]


@dataclass(frozen=True, kw_only=True)
class Dispatch:
    """One completed run of the device.

    Attributes:
        start_s: Start of the run.
        stepped_s: End of its steps.
        end_s: Time when the states were on the host.
        steps: Steps taken in every slot.
    """

    start_s: float
    stepped_s: float
    end_s: float
    steps: int


class TracedDispatch(NamedTuple):
    """A dispatch of a traced request: its span, and the attributes of the request's own span."""

    dispatch: Dispatch
    batch: SpanContext
    attributes: Attributes


@dataclass(slots=True)
class Stay:
    """The time of a request in a slot.

    Attributes:
        start_s: Time when it got the slot.
        prefill_s: Seconds that the host waited while the request was put into the slot.
        end_s: Time when it was parked; None if it has not been.
    """

    start_s: float
    prefill_s: float = 0.0
    end_s: float | None = None


@dataclass(eq=False, slots=True)
class RequestState(Generic[Request, State]):
    """A request in the scheduler, from its arrival to its end.

    Attributes:
        request: The request to run.
        callback: Called on the device thread: with the state after each step if `stream` is set,
            and at the end with the timed result, the failure or the preemption.
        stream: Whether `callback` receives each step.
        arrival_s: Time of arrival.
        steps_left: Steps until the end.
        trace: Span that the request belongs to, if it is traced.
        caller: Whose it is.
        stays: Its times in a slot: several if it was parked, which is to lose the slot to another
            caller's request and wait again.
        parked: State to go on from after it was parked.
        device_s: Share of the device so far.
        dispatches: Dispatches it took part in, if it is traced.
        cancelled: Whether its caller is gone.
    """

    request: Request
    callback: Callable[[Event[State]], None]
    stream: bool
    arrival_s: float
    steps_left: int
    trace: SpanContext | None = None
    caller: Caller = ANONYMOUS
    stays: list[Stay] = field(default_factory=list)
    parked: State | None = None
    device_s: float = 0.0
    dispatches: list[TracedDispatch] = field(default_factory=list)
    cancelled: bool = False

    @property
    def wait_starts_s(self) -> list[float]:
        """Start of each of its waits: its arrival, and each time that it was parked."""
        return [self.arrival_s, *(stay.end_s for stay in self.stays if stay.end_s is not None)]

    @property
    def queue_s(self) -> float:
        """Seconds it waited before its stays."""
        waits = zip(self.wait_starts_s, self.stays, strict=False)  # it may wait once more
        return sum(stay.start_s - wait_start_s for wait_start_s, stay in waits)


InSlots: TypeAlias = Mapping[int, RequestState[Request, State]]
"""Requests by the slot that each holds."""
