"""What a call can fail with, as one exception class a kind of failure.

Every one is a MuseError with the gRPC `code`, the one-line `message`, the `violations` field by
field and, where waiting may help, `retry_after_s`.
"""

import grpc

from services.runtime.wire.errors import FieldViolation, RequestError, read_error


class MuseError(RequestError):
    """A call that failed; also what the servers answer with a code that has no class of its own."""


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
    """Returns what a failed call raises.

    Args:
        error: What gRPC raised.
        address: Of the orchestrator, named where it cannot be reached.
    """
    read = read_error(error)
    message = read.message
    # An orchestrator that answers names the stage that is away; otherwise it is away itself.
    if read.code is grpc.StatusCode.UNAVAILABLE and not message.startswith("stage "):
        message = f"no orchestrator answers at {address}: {message}"
    return _CLASSES.get(read.code, MuseError)(
        read.code, message, violations=read.violations, retry_after_s=read.retry_after_s
    )


def invalid_request(field: str, description: str) -> InvalidRequest:
    """Returns the refusal of a field that does not even fit the wire."""
    return InvalidRequest(
        grpc.StatusCode.INVALID_ARGUMENT,
        f"{field}: {description}",
        violations=[FieldViolation(field, description)],
    )
