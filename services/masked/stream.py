"""A decode in flight as the messages of a stage's stream."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

from muse.common.v1.decoding_pb2 import DecodeResult, ProgressDetail

from services.decoding.pool import Job, Progress
from services.masked.requests import Grid, pack_progress, pack_start, pack_state, pack_tokens
from services.runtime.observability.tracing import span
from services.runtime.scheduling.inflight import InflightBatcher
from services.runtime.scheduling.slots import Preempted
from services.runtime.wire.caller import Caller
from services.runtime.wire.timing import Timed, pack_timing

Response = TypeVar("Response")


async def decode_messages(
    response: Callable[..., Response],
    batcher: InflightBatcher[Job, Progress],
    job: Job,
    detail: ProgressDetail.ValueType,
    *,
    stage: str,
    grid: Grid,
    within_s: float | None,
    caller: Caller,
) -> AsyncGenerator[Response, None]:
    """Yields the decode after each step, as far as asked for, and last its result.

    A server that stops hands the decode back instead: then its state is last.

    Close it (contextlib.aclosing) or cancel it to give the decode up.

    Args:
        response: The stage's `GenerateResponse`, which is one of progress, result and handed_back.
        batcher: Runs the job.
        job: The decode.
        detail: What is told of the steps.
        stage: Name of the stage, for the timing.
        grid: What the stage decodes.
        within_s: Seconds the caller waits; None for as long as it takes.
        caller: Caller of the request.

    Raises:
        RequestError: as `InflightBatcher.events`.
    """
    steps = detail != ProgressDetail.PROGRESS_DETAIL_UNSPECIFIED
    with_state = detail == ProgressDetail.PROGRESS_DETAIL_STATES
    happening = batcher.events(job, stream=steps, within_s=within_s, caller=caller)
    async with aclosing(happening) as events:
        async for event in events:
            if isinstance(event, Timed):
                with span("encode"):
                    result = DecodeResult(
                        tokens=pack_tokens(event.result.tokens, grid),
                        timing=pack_timing(stage, event),
                        steps=event.result.total,
                    )
                yield response(result=result)
            elif isinstance(event, Preempted):
                start, state = job.row, event.state
                yield response(
                    handed_back=pack_start(start, grid)
                    if state is None
                    else pack_state(state, start, grid)
                )
            else:
                yield response(progress=pack_progress(event, job.row, grid, with_state=with_state))
