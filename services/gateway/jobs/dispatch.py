"""A loop that claims work while there is room for it, and serves it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)
Item = TypeVar("Item")


class Dispatcher(Generic[Item]):
    """Claims items one by one, and serves several at once.

    Nothing that fails ends it: what failed is logged, and tried again after a pause.
    """

    def __init__(
        self,
        claim: Callable[[], Awaitable[Item | None]],
        serve: Callable[[Item], Awaitable[None]],
        *,
        at_once: int,
        poll_s: float,
    ) -> None:
        """Claims nothing yet.

        Args:
            claim: Returns the next item; None if there is none now.
            serve: Serves it to its end.
            at_once: Items in progress at once.
            poll_s: Seconds between two looks for items, and after a failure.
        """
        self._claim, self._serve, self._poll_s = claim, serve, poll_s
        self._room, self._woken = asyncio.Semaphore(at_once), asyncio.Event()

    def wake(self) -> None:
        """Has it look for items now."""
        self._woken.set()

    async def run(self) -> None:
        """Serves until it is cancelled, which cancels what it serves and waits for that."""
        async with asyncio.TaskGroup() as serving:
            while True:
                await self._room.acquire()
                serving.create_task(self._served(await self._next()))

    async def _next(self) -> Item:
        failing = False
        while True:
            self._woken.clear()
            try:
                item = await self._claim()
                failing = False
            except Exception:  # such as a database that is away; once for all tries that fail alike
                if not failing:
                    logger.warning("no job can be claimed", exc_info=True)
                item, failing = None, True
            if item is not None:
                return item
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._poll_s)

    async def _served(self, item: Item) -> None:
        try:
            await self._serve(item)
        except Exception:
            logger.exception("a job could not be served to its end")
            await asyncio.sleep(self._poll_s)
        finally:
            self._room.release()
