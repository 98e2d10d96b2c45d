"""Memory budget of edits: requests beyond it wait in order, up to a bounded number of bytes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from services.orchestrator.calls import Deadline
from services.orchestrator.edits.limits import MAX_EDITED_PIXELS, MAX_WAITING_BYTES
from services.runtime.observability.instruments import count_refusal
from services.runtime.wire.errors import RequestError, resource_exhausted

RETRY_AFTER_S = 2.0  # about what the largest edit takes in this process


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
        # Pixels that each waiting edit needs and bytes that it holds, in order of arrival.
        self._waiting: dict[asyncio.Future[None], tuple[int, int]] = {}

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
        self._waiting[granted] = (pixels, request_bytes)
        self._grant()
        try:
            if sum(held for _, held in self._waiting.values()) > self._max_bytes:
                raise count_refusal(
                    "no_memory",
                    resource_exhausted(
                        f"the edits in progress leave no memory for a picture of {pixels} pixels, "
                        f"and the waiting ones would hold more than {self._max_bytes} bytes; try "
                        "again",
                        retry_after_s=RETRY_AFTER_S,
                    ),
                )
            try:
                async with asyncio.timeout(deadline.left_s()):
                    await granted
            except TimeoutError as error:
                raise count_refusal(
                    "no_memory",
                    RequestError(
                        grpc.StatusCode.DEADLINE_EXCEEDED,
                        "the time was over before there was memory for the picture",
                    ),
                ) from error
            yield
        finally:
            if self._waiting.pop(granted, None) is None:  # it had the pixels
                self.free += pixels
            self._grant()

    def _grant(self) -> None:
        """Admits waiting edits while their pixels are free; a cancelled one leaves by itself."""
        while self._waiting:
            first, (pixels, _) = next(iter(self._waiting.items()))
            if pixels > self.free or first.cancelled():
                return
            del self._waiting[first]
            self.free -= pixels
            first.set_result(None)
