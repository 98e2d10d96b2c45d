"""How the orchestrator calls a stage: within the request's time, again if it was away."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from services.runtime.wire.errors import RequestError, read_error, unavailable

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


class Retries:
    """The tries of one call: again only if it was UNAVAILABLE and time is left.

        retries = Retries("base", deadline)
        while True:
            async with retries as left_s:
                return await stub.GetStatus(request, timeout=left_s)

    A block that fails for good raises a RequestError that names the stage.
    """

    def __init__(self, stage: str, deadline: Deadline) -> None:
        """Begins with the first try.

        Args:
            stage: Name of what is called, for refusals.
            deadline: Of the whole request.
        """
        self._stage, self._deadline, self._failed = stage, deadline, 0

    async def __aenter__(self) -> float | None:
        return self._deadline.left_s()

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> bool:
        refusal = self._refusal(error)
        if refusal is None:
            return False
        left_s, pause_s = self._deadline.left_s(), FIRST_PAUSE_S * 2**self._failed
        self._failed += 1
        time_left = left_s is None or left_s > pause_s
        away = refusal.code is grpc.StatusCode.UNAVAILABLE
        if away and time_left and self._failed < TRIES:
            await asyncio.sleep(pause_s)
            return True
        if refusal is error:
            return False
        raise refusal from error

    def _refusal(self, error: BaseException | None) -> RequestError | None:
        """Returns the error as a refusal; None where there is none, or it is not the call's."""
        if isinstance(error, grpc.aio.AioRpcError):
            return _naming(self._stage, read_error(error))
        if isinstance(error, asyncio.CancelledError):
            # gRPC may raise this also when the other side cancelled: a server that was cut off.
            task = asyncio.current_task()
            cancelled_here = task is not None and task.cancelling()
            return None if cancelled_here else unavailable(f"stage {self._stage} ended the call")
        return error if isinstance(error, RequestError) else None


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


@asynccontextmanager
async def task_group() -> AsyncGenerator[asyncio.TaskGroup, None]:
    """Makes a group of tasks; when one fails the others are cancelled and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
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
