"""What a run of faults records: requests, faults, and the state of processes. Times are seconds
since the start of the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

OK = "OK"
WORKER = "/worker"  # ends the name of a process that a pod started


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One call of a request; `code` is the name of its gRPC status, or of an unexpected exception.

    Attributes:
        retry_after_s: Seconds after which the server said to try again; None if it did not.
    """

    begin_s: float
    end_s: float
    code: str
    message: str = ""
    retry_after_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One request with all of its attempts.

    Attributes:
        number: Number of the request in this run.
        request: Name of the request, such as "inpaint/2".
        attempts: Calls in order; only the last one may be OK.
        digests: Digest of the pixels of each picture, by its name; empty without an OK.
    """

    number: int
    request: str
    attempts: Sequence[Attempt]
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name in messages: "inpaint/2 (request 17)"."""
        return f"{self.request} (request {self.number})"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault.

    Attributes:
        kind: Name of its kind, such as "kill".
        target: Name of the pod that it hit, such as "base-1".
        ends_calls: Whether calls of the target may fail by it, as those of a process that is
            killed, and nothing else does the target's work: no retry within the servers helps.
        end_s: Time at which it was taken back; of a kill, at which the process was gone.
        healed_s: Time at which all was well again; None if it never was while the run waited.
        problem: What was not well until then.
    """

    kind: str
    target: str
    ends_calls: bool
    begin_s: float
    end_s: float
    healed_s: float | None
    problem: str = ""

    @property
    def name(self) -> str:
        """Name in messages: "kill of base-1 at 12.0 s"."""
        return f"{self.kind} of {self.target} at {self.begin_s:.1f} s"

    def overlaps(self, attempt: Attempt) -> bool:
        """Returns whether a call ran at any time between the fault's begin and its healing."""
        healed = self.healed_s is None or attempt.begin_s <= self.healed_s
        return healed and self.begin_s <= attempt.end_s


@dataclass(frozen=True, kw_only=True)
class Sample:
    """State of one process.

    Attributes:
        process: Name of the process, such as "base-1" or "orchestrator-0/worker".
        memory_bytes: Memory that is of no file, also where it is swapped out.
        descriptors: Number of open file descriptors.
        answered: Requests that the run had seen end by then.
    """

    at_s: float
    process: str
    pid: int
    memory_bytes: int
    descriptors: int
    answered: int


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A check that does not hold: which one, why, and on what."""

    check: str
    message: str
    request: str = ""
    fault: str = ""
    process: str = ""

    def __str__(self) -> str:
        where = {"request": self.request, "fault": self.fault, "process": self.process}
        named = "; ".join(f"{name}: {value}" for name, value in where.items() if value)
        return f"{self.check}: {self.message}" + (f" [{named}]" if named else "")
