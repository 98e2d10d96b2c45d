"""Errors of requests: an exception on both sides of a call, a gRPC status with details between.

A servicer raises a RequestError; the server's interceptors answer with its status, and `read_error`
makes the same exception of that status on the other side.

Source: google.rpc.Status and google/rpc/error_details.proto (BadRequest, QuotaFailure, RetryInfo).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

DETAILS_KEY = "grpc-status-details-bin"  # where gRPC carries a google.rpc.Status
MAX_VALUE_LENGTH = 80  # characters of an invalid value that a message repeats
MAX_MESSAGE_LENGTH = 2000  # characters: it travels in a header, and gRPC limits all to 8 KiB


@dataclass(frozen=True)
class FieldViolation:
    """An invalid field.

    Attributes:
        field: Its path, such as "sampling.steps".
        description: Expected value, actual value, and advice.
    """

    field: str
    description: str


@dataclass(frozen=True, kw_only=True)
class QuotaViolation:
    """A quota that a request exceeds.

    Attributes:
        quota: Its name, such as "requests_per_minute".
        limit: Its limit.
        caller: Id of the caller whose quota it is.
        message: One sentence for a person.
    """

    quota: str
    limit: int
    caller: str
    message: str


class RequestError(Exception):
    """A refused request; the message says what was expected and what the request had."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        violations: Iterable[FieldViolation] = (),
        quota: QuotaViolation | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """Creates the error: a line for a person, and details that programs read."""
        message = shortened(printable(message), MAX_MESSAGE_LENGTH)
        super().__init__(message)
        self.code = code
        self.message = message
        self.violations = tuple(violations)
        self.quota = quota
        self.retry_after_s = retry_after_s

    def status(self) -> Status:
        """Returns the google.rpc.Status with its details."""
        status = Status(code=self.code.value[0], message=self.message)
        if self.violations:
            bad_request = BadRequest()
            for violation in self.violations:
                bad_request.field_violations.add(
                    field=violation.field, description=violation.description
                )
            status.details.append(_packed(bad_request))
        if self.quota is not None:
            failure = QuotaFailure()
            failure.violations.add(
                subject=f"caller:{self.quota.caller}",
                description=self.quota.message,
                quota_metric=self.quota.quota,
                quota_value=self.quota.limit,
            )
            status.details.append(_packed(failure))
        if self.retry_after_s is not None:
            delay = Duration()
            delay.FromNanoseconds(round(self.retry_after_s * 1e9))
            status.details.append(_packed(RetryInfo(retry_delay=delay)))
        return status


def printable(text: str) -> str:
    """Returns a text in one line: what cannot be printed, such as control characters, is escaped.

    A message may repeat what a caller wrote, and is shown by terminals and logs.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def shortened(text: str, length: int) -> str:
    """Returns a text, or its start if it is longer."""
    return text if len(text) <= length else text[:length] + "..."


def invalid_field(field: str, *, expected: str, got: object, advice: str = "") -> RequestError:
    """Returns the INVALID_ARGUMENT error of one field.

    Args:
        field: Its path, such as "sampling.steps".
        expected: Valid values, such as "1 to 256".
        got: Actual value; long values are cut.
        advice: How to correct it, unless that is obvious.
    """
    value = shortened(printable(str(got)), MAX_VALUE_LENGTH)
    description = f"expected {expected}, got {value}" + (f"; {advice}" if advice else "")
    return RequestError(
        grpc.StatusCode.INVALID_ARGUMENT,
        f"{field}: {description}",
        violations=[FieldViolation(field, description)],
    )


def failed_precondition(message: str) -> RequestError:
    """Returns the FAILED_PRECONDITION error of a request that the checkpoints cannot serve."""
    return RequestError(grpc.StatusCode.FAILED_PRECONDITION, message)


def unavailable(message: str, *, retry_after_s: float | None = None) -> RequestError:
    """Returns the UNAVAILABLE error of a request that a retry may serve."""
    return RequestError(grpc.StatusCode.UNAVAILABLE, message, retry_after_s=retry_after_s)


def resource_exhausted(message: str, *, retry_after_s: float) -> RequestError:
    """Returns the RESOURCE_EXHAUSTED error of a request that finds no room now."""
    return RequestError(grpc.StatusCode.RESOURCE_EXHAUSTED, message, retry_after_s=retry_after_s)


def read_error(error: grpc.RpcError) -> RequestError:
    """Returns the error that a call ended with, details included."""
    message = error.details() or error.code().name
    violations: list[FieldViolation] = []
    quota: QuotaViolation | None = None
    retry_after_s: float | None = None
    metadata: Any = error.trailing_metadata() or ()
    for key, value in metadata:
        if key == DETAILS_KEY:
            for detail in Status.FromString(value).details:
                bad_request, failure, retry = BadRequest(), QuotaFailure(), RetryInfo()
                if detail.Unpack(bad_request):
                    violations += [
                        FieldViolation(wrong.field, wrong.description)
                        for wrong in bad_request.field_violations
                    ]
                elif detail.Unpack(failure) and failure.violations:
                    exceeded = failure.violations[0]
                    quota = QuotaViolation(
                        quota=exceeded.quota_metric,
                        limit=exceeded.quota_value,
                        caller=exceeded.subject.removeprefix("caller:"),
                        message=exceeded.description,
                    )
                elif detail.Unpack(retry):
                    retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    return RequestError(
        error.code(), message, violations=violations, quota=quota, retry_after_s=retry_after_s
    )


def _packed(detail: BadRequest | QuotaFailure | RetryInfo) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed
