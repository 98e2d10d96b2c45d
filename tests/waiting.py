"""Waiting for what other tasks, threads or processes bring about."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Waits until a condition holds, without blocking the event loop.

    Raises:
        TimeoutError: it does not hold after `seconds`.
    """
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110, the condition sets no event
            await asyncio.sleep(0.005)


def wait_until(condition: Callable[[], Found], seconds: float = 10, every_s: float = 0.05) -> Found:
    """Waits until a condition holds, and returns what it found.

    Raises:
        TimeoutError: it does not hold after `seconds`.
    """
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"still not there after {seconds:g} s")
        time.sleep(every_s)
    return found
