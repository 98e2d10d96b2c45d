"""Calls of stages: deadlines, retries, task groups and streams."""

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from services.runtime.wire.errors import RequestError, read_error, unavailable

TRIES = 3
FIRST_PAUSE_S = 0.1
# What stages check of a request just as its caller wrote it; all else the orchestrator made.
CALLERS_FIELDS = ("sampling", "mask_free_edit", "texts")

logger = logging.getLogger(__name__)


class Deadline:
    """Deadline of a request on the monotonic clock."""

    def __init__(self, remaining_s: float | None) -> None:
        """Starts the clock; None means no deadline."""
        self._ends = None if remaining_s is None else time.monotonic() + remaining_s

    def left_s(self) -> float | None:
        """Returns the seconds left, at least 0, or None without a limit."""
        return None if self._ends is None else max(0.0, self._ends - time.monotonic())


class Retries:
    """Retries of one call: a call that failed as UNAVAILABLE is tried again while time is left.

        retries = Retries("base", deadline)
        while True:
            async with retries as left_s:
                return await stub.GetStatus(request, timeout=left_s)

    The last failure is raised as a RequestError that names the stage.
    """

    def __init__(self, stage: str, deadline: Deadline) -> None:
        """Starts with no try made."""
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
        """Returns the error as a RequestError; None if the call itself did not fail."""
        if isinstance(error, grpc.aio.AioRpcError):
            return _with_stage(self._stage, read_error(error))
        if isinstance(error, asyncio.CancelledError):
            return None if cancelled() else unavailable(f"stage {self._stage} ended the call")
        return error if isinstance(error, RequestError) else None


def _with_stage(stage: str, error: RequestError) -> RequestError:
    if error.code is grpc.StatusCode.INVALID_ARGUMENT:
        roots = {re.split(r"[.\[]", each.field)[0] for each in error.violations}
        if roots and roots.issubset(CALLERS_FIELDS):
            return error
        logger.error("stage %s refused what was made of a request: %s", stage, error.message)
        return RequestError(
            grpc.StatusCode.INTERNAL,
            f"stage {stage} refused what the orchestrator made of the request: {error.message}",
        )
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
