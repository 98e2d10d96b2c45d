"""The status with which a call ends, for its span, its metrics and its log alike."""

import math
import time
from typing import Any

import grpc

from services.runtime.server.requests import Context

TOLERANCE_S = 0.02  # the deadline arrives in milliseconds, from a clock that may be another


def deadline_of(context: Context) -> float:
    """Returns the deadline of a call on the monotonic clock; infinity without one."""
    remaining_s = context.time_remaining()
    return math.inf if remaining_s is None else time.monotonic() + remaining_s


def status_of_cancelled(deadline_s: float) -> grpc.StatusCode:
    """Returns the status that the caller sees of a call that is cancelled now.

    gRPC cancels the handler of a call whose caller has gone, and of one whose deadline has passed.
    """
    late = time.monotonic() >= deadline_s - TOLERANCE_S
    return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED


def status_of_aborted(context: Context) -> grpc.StatusCode:
    """Returns the status that a call was aborted with; gRPC gives it as a number."""
    code: Any = context.code()
    return next(each for each in grpc.StatusCode if code in (each, each.value[0]))
