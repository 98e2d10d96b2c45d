"""How the orchestrator calls a stage: within the request's time, again if it was away."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import grpc

from services.runtime.wire.errors import RequestError, read_error, unavailable

Answer = TypeVar("Answer")
Call = Callable[[float | None], Awaitable[Answer]]  # given the seconds it may take
TRIES = 3
FIRST_PAUSE_S = 0.1


class Deadline:
    """When a request's time is over."""

    def __init__(self, remaining_s: float | None) -> None:
        """Starts the clock; None means no limit."""
        self._ends = None if remaining_s is None else time.monotonic() + remaining_s

    def left_s(self) -> float | None:
        """Returns the seconds left, at least 0, or None without a limit."""
        return None if self._ends is None else max(0.0, self._ends - time.monotonic())


async def retried(call: Call[Answer], deadline: Deadline) -> Answer:
    """Makes a call; makes it again only if it was UNAVAILABLE and time is left.

    Args:
        call: Makes the call, within that many seconds.
        deadline: Of the whole request.

    Raises:
        RequestError: it was refused, or stayed unavailable.
    """
    for attempt in range(TRIES):
        try:
            return await call(deadline.left_s())
        except RequestError as error:
            left_s, pause_s = deadline.left_s(), FIRST_PAUSE_S * 2**attempt
            time_left = left_s is None or left_s > pause_s
            away = error.code is grpc.StatusCode.UNAVAILABLE
            if not away or not time_left or attempt == TRIES - 1:
                raise
            await asyncio.sleep(pause_s)
    raise AssertionError("the last try returns or raises")


async def call_stage(stage: str, call: Call[Answer], deadline: Deadline) -> Answer:
    """Calls a stage, as often as `retried` does.

    Args:
        stage: Its name, for the refusal.
        call: Makes the call, within that many seconds.
        deadline: Of the whole request.

    Raises:
        RequestError: the stage refused, or stayed unavailable; names it.
    """

    async def named(left_s: float | None) -> Answer:
        try:
            return await call(left_s)
        except grpc.aio.AioRpcError as error:
            raise _naming(stage, read_error(error)) from error
        except asyncio.CancelledError as error:
            # gRPC may raise this also when the other side cancelled: a server that was cut off.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise unavailable(f"stage {stage} ended the call") from error

    return await retried(named, deadline)


def _naming(stage: str, error: RequestError) -> RequestError:
    if error.violations:
        return error
    if error.code is grpc.StatusCode.CANCELLED:  # by the stage: nobody here did
        return unavailable(f"stage {stage} ended the call: {error.message}")
    if error.code is grpc.StatusCode.UNAVAILABLE:
        message = f"stage {stage} cannot be reached: {error.message}"
    else:
        message = f"stage {stage}: {error.message}"
    return RequestError(error.code, message, retry_after_s=error.retry_after_s)


async def together(*calls: Coroutine[Any, Any, None]) -> None:
    """Awaits all at once; when one fails the others are cancelled and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(call)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def events(call: Any) -> AsyncGenerator[Any, None]:
    """Reads a stage's stream, and cancels it when the reader stops.

    Raises:
        grpc.aio.AioRpcError: the stage refused.
    """
    try:
        async for response in call:
            yield response
    finally:
        call.cancel()
