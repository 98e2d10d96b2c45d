"""Memory budget of edits: requests beyond it wait in order, up to a bounded number of bytes."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc

from services.orchestrator.calls import Deadline
from services.orchestrator.edits.limits import MAX_EDITED_PIXELS, MAX_WAITING_BYTES
from services.runtime.observability.instruments import count_refusal
from services.runtime.wire.errors import RequestError, resource_exhausted

RETRY_AFTER_S = 2.0  # about what the largest edit takes in this process


@dataclass(frozen=True, kw_only=True, eq=False)
class _Waiting:
    """A waiting edit: the pixels it needs, the bytes it holds, and the future that admits it."""

    pixels: int
    held_bytes: int
    granted: asyncio.Future[None]


class PixelBudget:
    """Pixels that all edits in progress may hold together; first come, first served.

    Waiting edits hold their files in memory, so the sum of these files is bounded, too.
    """

    def __init__(
        self, pixels: int = MAX_EDITED_PIXELS, waiting_bytes: int = MAX_WAITING_BYTES
    ) -> None:
        """Starts with every pixel free."""
        self.free = pixels
        self._max_bytes = waiting_bytes
        self._waiting: deque[_Waiting] = deque()

    @asynccontextmanager
    async def held(
        self, pixels: int, deadline: Deadline, *, request_bytes: int = 0
    ) -> AsyncIterator[None]:
        """Reserves pixels for the block, once they are free; waiting holds `request_bytes`.

        Raises:
            RequestError: DEADLINE_EXCEEDED: the pixels were not free in time. RESOURCE_EXHAUSTED:
                the pixels are not free, and the waiting requests hold too many bytes.
        """
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(pixels=pixels, held_bytes=request_bytes, granted=granted))
        self._grant()
        if sum(each.held_bytes for each in self._waiting) > self._max_bytes:
            self._give_up(pixels, granted)
            raise count_refusal(
                "no_memory",
                resource_exhausted(
                    f"the edits in progress leave no memory for a picture of {pixels} pixels, and "
                    f"the waiting ones would hold more than {self._max_bytes} bytes; try again",
                    retry_after_s=RETRY_AFTER_S,
                ),
            )
        try:
            async with asyncio.timeout(deadline.left_s()):
                await granted
        except TimeoutError as error:
            self._give_up(pixels, granted)
            raise count_refusal(
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
        while self._waiting and self._waiting[0].pixels <= self.free:
            first = self._waiting.popleft()
            if not first.granted.cancelled():
                self.free -= first.pixels
                first.granted.set_result(None)

    def _release(self, pixels: int) -> None:
        self.free += pixels
        self._grant()

    def _give_up(self, pixels: int, granted: asyncio.Future[None]) -> None:
        if granted.done() and not granted.cancelled():
            self._release(pixels)
        else:
            granted.cancel()
            self._waiting = deque(each for each in self._waiting if each.granted is not granted)
            self._grant()
