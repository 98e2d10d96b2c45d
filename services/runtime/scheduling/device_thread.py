"""The one thread that uses the device, so that the event loop never waits for it."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class DeviceThread:
    """Runs functions one after another on a thread of its own."""

    def __init__(self, name: str = "device") -> None:
        """Creates the executor; the thread starts with the first function.

        Args:
            name: Name of the thread, as debuggers show it.
        """
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(
        self,
        function: Callable[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> tuple[Result, float]:
        """Runs a function on the thread and waits for it.

        If the caller is cancelled before the function starts, the function never runs; if later,
        the function runs to its end.

        Returns:
            The function's result and the seconds it ran, without the time it waited for the thread.
        """

        def timed() -> tuple[Result, float]:
            start_s = time.perf_counter()
            return function(*args, **kwargs), time.perf_counter() - start_s

        return await asyncio.get_running_loop().run_in_executor(self._executor, timed)

    def close(self) -> None:
        """Waits for the running function, drops the waiting ones and ends the thread."""
        self._executor.shutdown(wait=True, cancel_futures=True)
