"""Errors in the shape of OpenAI's API: `{"error": {"message", "type", "param", "code"}}`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from muse_client import (
    CheckpointConflict,
    DeadlineExceeded,
    InvalidRequest,
    MuseError,
    NotFound,
    NotServed,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
)

BAD_REQUEST, REFUSED, FAILED = "invalid_request_error", "rate_limit_error", "server_error"
RETRY_S = 1.0  # for a refusal that names no time
# The first that fits: status, type and code.
_KINDS: Sequence[tuple[type[MuseError], int, str, str]] = (
    (InvalidRequest, 400, BAD_REQUEST, "invalid_value"),
    (Unauthenticated, 401, BAD_REQUEST, "invalid_api_key"),
    (PermissionDenied, 403, BAD_REQUEST, "permission_denied"),
    (NotFound, 404, BAD_REQUEST, "not_found"),
    (QuotaExceeded, 429, REFUSED, "insufficient_quota"),
    (Overloaded, 429, REFUSED, "rate_limit_exceeded"),
    (NotServed, 501, FAILED, "not_served"),
    (Unavailable, 503, FAILED, "unavailable"),
    (CheckpointConflict, 503, FAILED, "checkpoint_conflict"),
    (DeadlineExceeded, 504, FAILED, "deadline_exceeded"),
    (MuseError, 500, FAILED, "internal"),
)
_EDITS = ("inpaint.", "outpaint.", "mask_free_edit.", "vary.")
# Fields of the gRPC API that this one calls otherwise.
_PARAMETERS = {"count": "n", "caller.id": "user"}


@dataclass
class ApiError(Exception):
    """A request that is refused, or that failed.

    Attributes:
        status: Of HTTP.
        message: One sentence for a person.
        kind: OpenAI's type of the error.
        code: Which error of its type it is.
        param: Name of the field that is wrong, if one is.
        headers: Of the answer.
    """

    status: int
    message: str
    kind: str = BAD_REQUEST
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        """The answer."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}


def invalid(param: str, expected: str, got: object, *, code: str = "invalid_value") -> ApiError:
    """Returns the refusal of a field's value."""
    return ApiError(400, f"{param}: expected {expected}, got {got}", code=code, param=param)


def api_error(error: MuseError) -> ApiError:
    """Returns the HTTP error of a failed call, with the time after which to try again."""
    status, kind, code = next(
        (status, kind, code) for each, status, kind, code in _KINDS if isinstance(error, each)
    )
    headers = {}
    wait_s = error.retry_after_s
    if wait_s is None and status in (429, 503) and not isinstance(error, QuotaExceeded):
        wait_s = RETRY_S
    if wait_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(wait_s)))
    param = _parameter(error.violations[0].field) if error.violations else None
    return ApiError(status, error.message, kind, code, param, headers)


def _parameter(field: str) -> str:
    for prefix in _EDITS:
        field = field.removeprefix(prefix)
    return _PARAMETERS.get(field, field)
