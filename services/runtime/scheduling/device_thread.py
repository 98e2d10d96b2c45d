"""The one thread that touches the device, so that the event loop never waits for it."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class DeviceThread:
    """Runs functions one after the other on a thread of its own."""

    def __init__(self, name: str = "device") -> None:
        """Starts nothing yet; the thread starts with the first function.

        Args:
            name: The thread's name, as debuggers show it.
        """
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(
        self,
        function: Callable[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> tuple[Result, float]:
        """Runs a function there and waits for it.

        A caller that is cancelled before its turn leaves nothing to run; one that is cancelled
        later leaves the function to finish.

        Returns:
            What it returned and the seconds it ran, waiting for its turn left out.
        """

        def timed() -> tuple[Result, float]:
            start_s = time.perf_counter()
            return function(*args, **kwargs), time.perf_counter() - start_s

        return await asyncio.get_running_loop().run_in_executor(self._executor, timed)

    def close(self) -> None:
        """Waits for what runs, drops what waits and ends the thread."""
        self._executor.shutdown(wait=True, cancel_futures=True)
