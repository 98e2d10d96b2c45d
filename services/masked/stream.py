"""A decode in flight as the messages of muse.common.v1."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from muse.common.v1.decoding_pb2 import (
    DecodeProgress,
    DecodeResult,
    DecodeState,
    ProgressDetail,
)

from services.decoding.pool import Job, Progress
from services.masked.requests import Grid, pack_progress, pack_start, pack_state, pack_tokens
from services.runtime.inflight import InflightBatcher
from services.runtime.slots import HandedBack
from services.runtime.timing import Timed
from services.runtime.wire import pack_timing


async def decode_messages(
    batcher: InflightBatcher[Job, Progress],
    job: Job,
    detail: ProgressDetail.ValueType,
    *,
    stage: str,
    grid: Grid,
    within_s: float | None,
) -> AsyncGenerator[DecodeProgress | DecodeResult | DecodeState, None]:
    """Yields the decode after each step, as far as asked for, and last its result.

    A server that stops hands the decode back instead: then its state is last.

    Close it (contextlib.aclosing) or cancel it to give the decode up.

    Args:
        batcher: Runs the job.
        job: The decode.
        detail: What is told of the steps.
        stage: Name of the stage, for the timing.
        grid: What the stage decodes.
        within_s: Seconds the caller waits; None for as long as it takes.

    Raises:
        RequestError: as `InflightBatcher.events`.
    """
    steps = detail != ProgressDetail.PROGRESS_DETAIL_UNSPECIFIED
    with_state = detail == ProgressDetail.PROGRESS_DETAIL_STATES
    async with aclosing(batcher.events(job, steps=steps, within_s=within_s)) as events:
        async for event in events:
            if isinstance(event, Timed):
                yield DecodeResult(
                    tokens=pack_tokens(event.result.tokens, grid),
                    timing=pack_timing(stage, event.queue_s, event.compute_s),
                    steps=event.result.total,
                )
            elif isinstance(event, HandedBack):
                if event.state is None:
                    yield pack_start(job.row, grid)
                else:
                    yield pack_state(event.state, job.row, grid)
            else:
                yield pack_progress(event, job.row, grid, with_state=with_state)
