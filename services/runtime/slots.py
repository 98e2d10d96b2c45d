"""What a scheduler of slots speaks of: jobs, the device that runs them, what is told of them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from services.runtime.timing import Timed


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
        start_s: When it got its slot; None before.
        abandoned: Nobody waits for it any more.
    """

    job: Job
    tell: Callable[[State | Timed[State] | Failed | HandedBack[State]], None]
    watched: bool
    arrival_s: float
    left: int
    start_s: float | None = None
    abandoned: bool = False

    @property
    def queue_s(self) -> float | None:
        """How long it waited for its slot; None while it does."""
        return None if self.start_s is None else self.start_s - self.arrival_s
