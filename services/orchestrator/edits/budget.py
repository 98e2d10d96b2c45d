"""Memory for the pictures being edited: those beyond it wait for their turn."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from services.orchestrator.calls import Deadline
from services.orchestrator.edits.limits import MOST_EDITED_PIXELS
from services.runtime.errors import RequestError
from services.runtime.instruments import refused


class PixelBudget:
    """Pixels that all edits under way may hold together; first come, first served."""

    def __init__(self, pixels: int = MOST_EDITED_PIXELS) -> None:
        """Starts with all of them free."""
        self.free = pixels
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def held(self, pixels: int, deadline: Deadline) -> AsyncIterator[None]:
        """Holds so many pixels, once they are free.

        Args:
            pixels: At most as many as there are in all.
            deadline: Of the request.

        Raises:
            RequestError: DEADLINE_EXCEEDED: they were not free in time.
        """
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((pixels, granted))
        self._grant()
        try:
            async with asyncio.timeout(deadline.left_s()):
                await granted
        except TimeoutError as error:
            self._give_up(pixels, granted)
            raise refused(
                "no_memory",
                RequestError(
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                    "the time was over before there was memory for the picture",
                ),
            ) from error
        except asyncio.CancelledError:
            self._give_up(pixels, granted)
            raise
        try:
            yield
        finally:
            self._release(pixels)

    def _grant(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.free:
            pixels, granted = self._waiting.popleft()
            if not granted.cancelled():
                self.free -= pixels
                granted.set_result(None)

    def _release(self, pixels: int) -> None:
        self.free += pixels
        self._grant()

    def _give_up(self, pixels: int, granted: asyncio.Future[None]) -> None:
        if granted.done() and not granted.cancelled():
            self._release(pixels)
        else:
            granted.cancel()
            self._waiting = deque(each for each in self._waiting if each[1] is not granted)
            self._grant()
