"""Calls of stages: deadlines, retries, task groups and streams."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc

from services.orchestrator.timeline import Call, timed
from services.runtime.wire.errors import RequestError, read_error, unavailable

TRIES = 3
FIRST_PAUSE_S = 0.1
Result = TypeVar("Result")


class Deadline:
    """Deadline of a request on the monotonic clock."""

    def __init__(self, remaining_s: float | None) -> None:
        """Starts the clock; None means no deadline."""
        self._ends = None if remaining_s is None else time.monotonic() + remaining_s

    def left_s(self) -> float | None:
        """Returns the seconds left, at least 0, or None without a limit."""
        return None if self._ends is None else max(0.0, self._ends - time.monotonic())


async def retried(
    stage: str, deadline: Deadline, call: Callable[[float | None], Awaitable[Result]]
) -> Result:
    """Calls a stage with the seconds left; calls again if it is UNAVAILABLE while time is left.

    Raises:
        RequestError: the last failure; the message names the stage.
    """
    failed = 0
    while True:
        try:
            return await call(deadline.left_s())
        except (grpc.aio.AioRpcError, RequestError, asyncio.CancelledError) as error:
            refusal = _refusal(stage, error)
            if refusal is None:
                raise
            left_s, pause_s = deadline.left_s(), FIRST_PAUSE_S * 2**failed
            failed += 1
            time_left = left_s is None or left_s > pause_s
            away = refusal.code is grpc.StatusCode.UNAVAILABLE
            if not (away and time_left and failed < TRIES):
                raise refusal from (None if refusal is error else error)
        await asyncio.sleep(pause_s)


async def timed_call(
    stage: str, method: Callable[..., Awaitable[Any]], request: Any, deadline: Deadline
) -> tuple[Any, Call]:
    """Calls a method with one response; returns the response and its times.

    Raises:
        RequestError: the stage refused, or stayed unavailable.
    """
    begun = time.monotonic()
    response = await retried(stage, deadline, lambda left_s: method(request, timeout=left_s))
    return response, timed(response.timing, begun)


def _refusal(stage: str, error: BaseException) -> RequestError | None:
    """Returns the error of a call as a RequestError; None if this task was cancelled."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, grpc.aio.AioRpcError):
        return _with_stage(stage, read_error(error))
    return None if cancelled() else unavailable(f"stage {stage} ended the call")


def _with_stage(stage: str, error: RequestError) -> RequestError:
    if error.violations:
        return error
    if error.code is grpc.StatusCode.CANCELLED:  # by the stage
        return unavailable(f"stage {stage} ended the call: {error.message}")
    if error.code is grpc.StatusCode.UNAVAILABLE:
        message = f"stage {stage} cannot be reached: {error.message}"
    else:
        message = f"stage {stage}: {error.message}"
    return RequestError(error.code, message, retry_after_s=error.retry_after_s)


def cancelled() -> bool:
    """Returns whether this task was cancelled, not only a call by its server.

    gRPC raises a CancelledError for both.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@asynccontextmanager
async def task_group() -> AsyncGenerator[asyncio.TaskGroup, None]:
    """A TaskGroup that raises the first error of a task itself, not an ExceptionGroup."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def events(call: Any) -> AsyncGenerator[Any, None]:
    """Yields the responses of a streaming call, and cancels the call when the reader stops.

    Raises:
        grpc.aio.AioRpcError: the stage refused.
    """
    try:
        async for response in call:
            yield response
    finally:
        call.cancel()
