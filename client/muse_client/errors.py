"""What a call can fail with, as one exception class a kind of failure.

Every one is a MuseError with the gRPC `code`, the one-line `message`, the `violations` field by
field and, where waiting may help, `retry_after_s`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import grpc
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from grpc_status import rpc_status


@dataclass(frozen=True)
class FieldViolation:
    """A field that is wrong.

    Attributes:
        field: Its path, such as "base.steps".
        description: What was expected, what came, what to do.
    """

    field: str
    description: str


class MuseError(Exception):
    """A call that failed; also what the servers answer with a code that has no class of its own.

    Attributes:
        code: The gRPC status code.
        message: One line for a person.
        violations: The fields that are wrong.
        retry_after_s: Seconds after which another try may succeed, if the server named them.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        violations: Iterable[FieldViolation] = (),
        retry_after_s: float | None = None,
    ) -> None:
        """Makes the error; the class documents the arguments."""
        super().__init__(message)
        self.code, self.message = code, message
        self.violations, self.retry_after_s = tuple(violations), retry_after_s


class InvalidRequest(MuseError):
    """A field is out of its range: `violations` names it, what was expected and what came."""


class CheckpointConflict(MuseError):
    """The stages serve checkpoints that were not trained together."""


class NotFound(MuseError):
    """What was asked for is not there."""


class NotServed(MuseError):
    """The servers know what is asked, but do not serve it."""


class Overloaded(MuseError):
    """There is no room now; try again after `retry_after_s`."""


class Unavailable(MuseError):
    """The orchestrator or one of its stages cannot be reached."""


class DeadlineExceeded(MuseError):
    """The time given was over before the last picture was done."""


_CLASSES: dict[grpc.StatusCode, type[MuseError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.FAILED_PRECONDITION: CheckpointConflict,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNIMPLEMENTED: NotServed,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}


def muse_error(error: grpc.RpcError, address: str) -> MuseError:
    """Returns what a failed call raises, with the details of its google.rpc.Status.

    Args:
        error: What gRPC raised.
        address: Of the orchestrator, named where it cannot be reached.
    """
    code, message = error.code(), error.details() or error.code().name
    # An orchestrator that answers names the stage that is away; otherwise it is away itself.
    if code is grpc.StatusCode.UNAVAILABLE and not message.startswith("stage "):
        message = f"no orchestrator answers at {address}: {message}"
    violations: list[FieldViolation] = []
    retry_after_s = None
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        bad_request, retry = BadRequest(), RetryInfo()
        if detail.Unpack(bad_request):
            violations += [
                FieldViolation(each.field, each.description)
                for each in bad_request.field_violations
            ]
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    kind = _CLASSES.get(code, MuseError)
    return kind(code, message, violations=violations, retry_after_s=retry_after_s)


def invalid_request(field: str, description: str) -> InvalidRequest:
    """Returns the refusal of a field that does not even fit the wire."""
    return InvalidRequest(
        grpc.StatusCode.INVALID_ARGUMENT,
        f"{field}: {description}",
        violations=[FieldViolation(field, description)],
    )
