"""A caller's first decode beside another's that hold all slots, over gRPC."""

import asyncio
from typing import Any

import pytest
from muse.common.v1 import caller_pb2, decoding_pb2

from services.runtime.wire.tensors import pack_embedding
from tests.masked.conftest import ENCODER, TEXT, Serve

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.usefixtures("slow_steps")
@pytest.mark.parametrize("name", ["base", "superres"])
async def test_a_parked_decode_streams_on_to_the_tokens_of_a_quiet_run(
    serve: Serve, name: str
) -> None:
    async with serve(name, max_batch_size=2) as stage:

        def request(seed: int, caller: str) -> Any:
            return stage.request(
                sampling=decoding_pb2.Sampling(steps=16, seed=seed, guidance_scale=2.0),
                negative_prompt=pack_embedding(TEXT[::-1], ENCODER),
                caller=caller_pb2.Caller(id=caller),
                progress=decoding_pb2.PROGRESS_DETAIL_STEPS,
            )

        flood = [asyncio.create_task(stage.events(request(seed, "flood"))) for seed in (1, 2)]
        await stage.until_busy(active=2)
        other = asyncio.create_task(stage.events(request(3, "other")))
        await stage.until_busy(active=2, queued=1)  # one of the two flooding decodes
        ended: list[asyncio.Task[Any]] = []
        for task in (*flood, other):
            task.add_done_callback(ended.append)
        together = [await task for task in (*flood, other)]
        assert ended[-1] in flood  # the one that was parked
        quiet = [await stage.events(request(seed, "quiet")) for seed in (1, 2, 3)]

    for events, alone in zip(together, quiet, strict=True):
        steps = [event.progress.step for event in events[:-1]]
        assert steps == list(range(1, len(steps) + 1))
        assert events[-1].result.tokens == alone[-1].result.tokens
