"""Exceptions of the client: one class for each kind of failure.

Each is a MuseError with the gRPC `code`, a one-line `message`, the `violations` of fields and,
where waiting may help, `retry_after_s`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import (  # type: ignore[import-untyped, unused-ignore]
    BadRequest,
    QuotaFailure,
    RetryInfo,
)
from grpc_status import rpc_status

from muse_client.tls import Tls, handshake_problem

TOO_LARGE = "larger than max"  # what gRPC says of a message beyond a limit
AnyMessage = TypeVar("AnyMessage", bound=Message)


@dataclass(frozen=True)
class FieldViolation:
    """An invalid field of a request.

    Attributes:
        field: Path of the field, such as "base.steps".
        description: Expected values, the value received, and advice.
    """

    field: str
    description: str


class MuseError(Exception):
    """A failed call; a code without a class of its own raises MuseError itself.

    Attributes:
        code: gRPC status code.
        message: One line for a person.
        violations: Invalid fields of the request.
        retry_after_s: Seconds after which a retry may succeed; None if the server named none.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        violations: Iterable[FieldViolation] = (),
        retry_after_s: float | None = None,
    ) -> None:
        """Creates the error; the class documents the arguments."""
        super().__init__(message)
        self.code, self.message = code, message
        self.violations, self.retry_after_s = tuple(violations), retry_after_s


class InvalidRequest(MuseError):
    """A field is out of its range, see `violations`, or a message is too large."""


class CheckpointConflict(MuseError):
    """The stages serve checkpoints that were not trained together."""


class NotFound(MuseError):
    """The requested object does not exist."""


class NotServed(MuseError):
    """The server does not offer the requested feature."""


class Overloaded(MuseError):
    """The servers are at capacity; retry after `retry_after_s`."""


class QuotaExceeded(Overloaded):
    """A quota of the caller is used up; the message names it.

    Without `retry_after_s` the quota never allows the request.
    """


class Unauthenticated(MuseError):
    """The servers require a credential, and the client's is missing or not valid."""


class PermissionDenied(MuseError):
    """The caller's policy does not allow the request, or the safety policy none of its images."""


class Unavailable(MuseError):
    """The orchestrator or one of its stages cannot be reached."""


class DeadlineExceeded(MuseError):
    """The deadline passed before the last image was finished, or would."""


_CLASSES: dict[grpc.StatusCode, type[MuseError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.FAILED_PRECONDITION: CheckpointConflict,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNIMPLEMENTED: NotServed,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}


def muse_error(error: grpc.RpcError, address: str, tls: Tls | None = None) -> MuseError:
    """Returns the exception of a failed call, with the details of its google.rpc.Status.

    Args:
        error: Error that gRPC raised.
        address: Address of the orchestrator, for the message.
        tls: TLS of the client; None for plain text.
    """
    code, message = error.code(), error.details() or error.code().name
    # An orchestrator that answers names the stage that is away; other errors are its own absence.
    if code is grpc.StatusCode.UNAVAILABLE and not message.startswith("stage "):
        problem = handshake_problem(message, tls) or message
        message = f"no orchestrator answers at {address}: {problem}"
    violations: list[FieldViolation] = []
    retry_after_s = None
    kind = _CLASSES.get(code, MuseError)
    status = rpc_status.from_call(cast("grpc.Call", error))
    for detail in status.details if status is not None else ():
        bad_request, failure, retry = BadRequest(), QuotaFailure(), RetryInfo()
        if detail.Unpack(bad_request):
            violations += [
                FieldViolation(each.field, each.description)
                for each in bad_request.field_violations
            ]
        elif detail.Unpack(failure):
            kind = QuotaExceeded
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and TOO_LARGE in message:
        kind = InvalidRequest  # it is too large for ever, not for now
    return kind(code, message, violations=violations, retry_after_s=retry_after_s)


def invalid_request(field: str, description: str) -> InvalidRequest:
    """Returns the error of a value that does not fit its field."""
    return InvalidRequest(
        grpc.StatusCode.INVALID_ARGUMENT,
        f"{field}: {description}",
        violations=[FieldViolation(field, description)],
    )


def set_fields(message: AnyMessage, values: Mapping[str, Any], prefix: str = "") -> AnyMessage:
    """Sets the fields of a message whose values are not None, and returns the message.

    Args:
        message: Message to change.
        values: Values by field name.
        prefix: Path of the message in the request, for errors.

    Raises:
        InvalidRequest: a value does not fit its field.
    """
    for name, value in values.items():
        if value is not None:
            try:
                setattr(message, name, value)
            except (TypeError, ValueError) as error:
                raise invalid_request(
                    f"{prefix}{name}", f"expected a number from 0 up, got {value}"
                ) from error
    return message
