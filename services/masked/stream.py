"""Decodes as streams: jobs are batched, their steps are told as they happen, the result is last."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

from services.decoding.pool import Progress
from services.runtime.batching import Batcher, Timed

JobType = TypeVar("JobType")
OnStep = Callable[[Progress], None]


class DecodeStream(Generic[JobType]):
    """Submits decodes to a batcher and relays what the device thread tells of them."""

    def __init__(self, batcher: Batcher[JobType, Progress]) -> None:
        """Relays for `batcher`."""
        self._batcher = batcher

    async def events(
        self, make_job: Callable[[OnStep | None], JobType], *, steps: bool
    ) -> AsyncIterator[Progress | Timed[Progress]]:
        """Yields the decode after each step, if asked for, and last the timed result.

        A caller that goes away before its batch starts costs no compute.

        Args:
            make_job: Makes the job, given what to call after each step.
            steps: Whether steps are told.
        """
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[Progress | None] = asyncio.Queue()

        def tell(progress: Progress | None) -> None:
            loop.call_soon_threadsafe(told.put_nowait, progress)

        decode = asyncio.create_task(self._batcher.submit(make_job(tell if steps else None)))
        decode.add_done_callback(lambda _: tell(None))
        try:
            while (progress := await told.get()) is not None:
                yield progress
            yield await decode
        finally:
            decode.cancel()
