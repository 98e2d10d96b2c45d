"""Waiting for what other tasks bring about."""

import asyncio
import time
from collections.abc import Callable


async def soon(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Waits until something is true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"still not true after {seconds} s")
        await asyncio.sleep(0.01)
