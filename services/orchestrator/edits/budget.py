"""Memory budget of edits: requests beyond it wait in turn, up to a bounded number of bytes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc

from services.orchestrator.calls import Deadline
from services.orchestrator.edits.limits import MAX_EDITED_PIXELS, MAX_WAITING_BYTES
from services.runtime.observability.instruments import count_refusal
from services.runtime.scheduling.fair_queue import FairQueue
from services.runtime.wire.caller import ANONYMOUS, Caller
from services.runtime.wire.errors import RequestError, resource_exhausted

RETRY_AFTER_S = 2.0  # about what the largest edit takes in this process


@dataclass(frozen=True, eq=False)
class _Waiting:
    """An edit that waits: the pixels that it needs, and the bytes that it holds meanwhile."""

    granted: asyncio.Future[None]
    pixels: int
    request_bytes: int
    caller: Caller


class PixelBudget:
    """Pixels that all edits in progress may hold together, shared fairly between callers.

    Waiting edits hold their files in memory, so the sum of these files is bounded, too.
    """

    def __init__(
        self, pixels: int = MAX_EDITED_PIXELS, waiting_bytes: int = MAX_WAITING_BYTES
    ) -> None:
        """Starts with every pixel free."""
        self.free = pixels
        self._max_bytes = waiting_bytes
        self._queue: FairQueue[_Waiting] = FairQueue(capacity=waiting_bytes)

    @asynccontextmanager
    async def held(
        self,
        pixels: int,
        deadline: Deadline,
        *,
        caller: Caller = ANONYMOUS,
        request_bytes: int = 0,
    ) -> AsyncIterator[None]:
        """Reserves pixels for the block, once they are free; waiting holds `request_bytes`.

        Raises:
            RequestError: DEADLINE_EXCEEDED: the pixels were not free in time. RESOURCE_EXHAUSTED:
                the pixels are not free, and the waiting requests of all callers, or of this one,
                hold too many bytes.
        """
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(granted, pixels, request_bytes, caller)
        self._queue.push(waiting, caller, cost=pixels)
        self._grant()
        try:
            if not granted.done() and not self._has_room(waiting):
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
            if not self._queue.remove(waiting):  # it had the pixels
                self.free += pixels
            self._grant()

    def _has_room(self, newest: _Waiting) -> bool:
        """Returns whether the newest edit may wait; see `FairQueue.has_room`, here for bytes."""
        before = [each for each in self._queue.items() if each is not newest]
        free = self._max_bytes - sum(each.request_bytes for each in before)
        own = sum(each.request_bytes for each in before if each.caller == newest.caller)
        return own < free and newest.request_bytes <= free

    def _grant(self) -> None:
        """Admits waiting edits while their pixels are free; a cancelled one leaves by itself."""
        while waiting := self._queue.items():
            first = waiting[0]
            if first.pixels > self.free or first.granted.cancelled():
                return
            self._queue.pop()
            self.free -= first.pixels
            first.granted.set_result(None)
