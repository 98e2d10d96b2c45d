"""Work in threads, which has ended when the caller goes on, also if the caller is cancelled."""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def run_in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs a function in a thread of the loop's default executor, as `run_in`."""
    return await run_in(None, partial(function, *args, **kwargs))


async def run_in(
    executor: Executor | None,
    function: Callable[[], T],
    *,
    cancel: Callable[[], None] | None = None,
) -> T:
    """Runs a function in a thread, and waits for its end even if the caller is cancelled.

    A thread cannot be ended, and holds memory while it works: whoever counts that memory must not
    go on before.

    Args:
        executor: Owner of the thread; None for the loop's default executor.
        function: Runs with the context variables of the caller.
        cancel: Makes the function end soon; called if the caller is cancelled.
    """
    context = contextvars.copy_context()
    running = asyncio.get_running_loop().run_in_executor(executor, context.run, function)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if cancel is not None:
            cancel()
        while not running.done():
            with suppress(asyncio.CancelledError):  # a further one: this one goes on in a moment
                await asyncio.wait([running])
        raise
