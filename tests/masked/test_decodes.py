"""What base and superres answer, and when."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import grpc
import numpy as np
import pytest
from muse.common.v1 import decoding_pb2

from services.presets import preset
from services.runtime.wire.errors import read_error
from services.runtime.wire.tensors import pack_embedding, pack_grid, unpack_grid
from tests.masked.conftest import Serve, Stage

TINY = preset("tiny")
ENCODER, LOW, HIGH = "t5:1", "codebook:low", "codebook:high"
TEXT = np.random.default_rng(0).normal(size=(5, TINY.base.text_hidden)).astype(np.float32)

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_decode_ends_with_all_tokens_of_the_stages_own_codebook(
    base: Stage, superres: Stage
) -> None:
    low = (await base.events(base.request()))[-1].result
    high = (await superres.events(superres.request(low_tokens=low.tokens)))[-1].result

    for result, config, codebook in (
        (low, TINY.base, LOW),
        (high, TINY.superres, HIGH),
    ):
        unpack_grid(
            result.tokens,
            field="tokens",
            codebook=codebook,
            codebook_size=config.vocabulary,
            shape=(config.grid, config.grid),
        )
        assert result.timing.compute_s > 0


async def test_four_at_a_time_get_what_each_gets_alone(base: Stage, superres: Stage) -> None:
    negative = pack_embedding(TEXT[::-1], ENCODER)
    for stage in (base, superres):
        requests = [
            stage.request(
                sampling=decoding_pb2.Sampling(steps=3 + seed, seed=seed, guidance_scale=3.0),
                **({"negative_prompt": negative} if seed == 2 else {}),
            )
            for seed in range(4)
        ]
        together = await asyncio.gather(*(stage.events(each) for each in requests))
        alone = [await stage.events(each) for each in requests]

        assert [one[-1].result.tokens for one in together] == [
            one[-1].result.tokens for one in alone
        ]
        assert len({one[-1].result.tokens.ids for one in alone}) == 4


@pytest.mark.usefixtures("slow_steps")
async def test_a_short_request_joins_a_long_one_and_is_done_before_it(base: Stage) -> None:
    def request(steps: int) -> Any:
        return base.request(sampling=decoding_pb2.Sampling(steps=steps, seed=steps))

    alone = [(await base.events(request(steps)))[-1].result.tokens for steps in (16, 2)]
    long = asyncio.create_task(base.events(request(16)))
    await base.until_busy(active=1)
    short = (await base.events(request(2)))[-1].result
    assert not long.done()

    assert [(await long)[-1].result.tokens, short.tokens] == alone
    assert short.timing.compute_s >= 0.1  # its steps may share a dispatch
    assert short.timing.queue_s + short.timing.compute_s < (await long)[-1].result.timing.compute_s


@pytest.mark.parametrize("end", ["deadline", "cancel"])
async def test_a_request_nobody_waits_for_frees_its_slot_long_before_its_last_step(
    base: Stage, slow_steps: list[int], end: str
) -> None:
    request = base.request(sampling=decoding_pb2.Sampling(steps=16))
    call = base.stub.Generate(request, timeout=0.5 if end == "deadline" else None)
    if end == "cancel":
        await base.until_busy(active=1)
        call.cancel()
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await call.read()
    await base.until_busy(active=0)

    assert 0 < sum(slow_steps) < 12
    assert (await base.events(base.request()))[-1].HasField("result")


@pytest.mark.usefixtures("slow_steps")
async def test_a_decode_is_cut_down_to_its_deadline_only_where_the_request_allows_it(
    serve: Serve, base: Stage
) -> None:
    async with serve("base", max_batch_size=2) as short_of_time:
        long = base.request(sampling=decoding_pb2.Sampling(steps=16))
        call = asyncio.create_task(short_of_time.events(long))
        await short_of_time.until_busy(active=1)
        await short_of_time.events(base.request())  # measures what two at a time take

        willing = base.request(sampling=decoding_pb2.Sampling(steps=16, min_steps=2, seed=1))
        (cut,) = [event async for event in short_of_time.stub.Generate(willing, timeout=1.5)]
        await call
        call = asyncio.create_task(short_of_time.events(long))
        await short_of_time.until_busy(active=1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await short_of_time.stub.Generate(long, timeout=0.5).read()
        await call

    assert 2 <= cut.result.steps < 16
    short = base.request(sampling=decoding_pb2.Sampling(steps=cut.result.steps, seed=1))
    assert (await base.events(short))[-1].result.tokens == cut.result.tokens
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (read_error(caught.value).retry_after_s or 0) > 0


async def test_no_request_makes_a_serving_stage_compile(
    base: Stage, superres: Stage, nothing_compiles: Callable[[], AbstractContextManager[None]]
) -> None:
    random = np.random.default_rng(1)

    def any_request(stage: Any) -> Any:
        words = random.normal(size=(random.integers(1, 32), TINY.base.text_hidden))
        sampling = decoding_pb2.Sampling(
            steps=random.integers(1, 257),
            guidance_scale=random.choice([0.0, 5.0]),
            guidance_scale_start=random.choice([0.0, 2.0]),
            temperature=random.choice([0.0, 1.0]),
            top_k=random.integers(0, 40),
            seed=random.integers(2**63),
        )
        changes: dict[str, Any] = {
            "prompt": pack_embedding(words.astype(np.float32), ENCODER),
            "sampling": sampling,
            "progress": random.integers(3),
        }
        if random.random() < 0.3:
            changes["negative_prompt"] = pack_embedding(TEXT[:2], ENCODER)
        return stage.request(**changes)

    with nothing_compiles():
        for _ in range(4):
            calls = [base.events(any_request(base)) for _ in range(5)]
            calls += [superres.events(any_request(superres)) for _ in range(3)]
            for events in await asyncio.gather(*calls):
                assert events[-1].HasField("result")


async def test_every_step_is_streamed_and_any_of_its_states_can_be_resumed(base: Stage) -> None:
    quiet = (await base.events(base.request()))[-1].result.tokens
    events = await base.events(base.request(progress=decoding_pb2.PROGRESS_DETAIL_STATES))

    assert [event.progress.step for event in events[:-1]] == [1, 2, 3, 4, 5]
    assert events[-1].result.tokens == quiet
    for event in events[:-1]:
        resumed = await base.events(base.request(resume=event.progress.state))
        assert resumed[-1].result.tokens == quiet


async def test_known_tokens_of_a_grid_that_is_handed_in_stay(base: Stage) -> None:
    grid = np.full((TINY.base.grid, TINY.base.grid), 7)
    known = np.zeros(grid.size, np.uint8)
    known[3:9] = 1
    resume = decoding_pb2.DecodeState(tokens=pack_grid(grid, LOW), known=known.tobytes())

    result = (await base.events(base.request(resume=resume)))[-1].result

    ids = np.frombuffer(result.tokens.ids, "<u2")
    assert np.all(ids[3:9] == 7)
    assert np.any(ids != 7)


async def test_the_status_names_what_is_served(superres: Stage) -> None:
    status = await superres.status()

    assert (status.stage, status.preset) == ("superres", "tiny")
    assert dict(status.fingerprints) == {
        "encoder": ENCODER,
        "low_codebook": LOW,
        "codebook": HIGH,
    }
    assert status.checkpoints["superres"].startswith("sha256:")
