"""Base and superres as servers, over gRPC, with tiny untrained checkpoints."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from flax import nnx
from google.protobuf.message import Message
from muse.base.v1 import base_pb2, base_pb2_grpc
from muse.common.v1 import decoding_pb2
from muse.superres.v1 import superres_pb2, superres_pb2_grpc

from services.base import __main__ as base_server
from services.base.model import BaseTransformer
from services.decoding.pool import DecodePool, Progress
from services.nn.parameters import parameters_of
from services.presets import preset
from services.runtime.checkpoints import save_checkpoint
from services.runtime.errors import read_error
from services.runtime.server import running_server
from services.runtime.wire import pack_embedding, pack_grid, unpack_grid
from services.superres import __main__ as superres_server
from services.superres.model import SuperresTransformer

TINY = preset("tiny")
ENCODER, LOW, HIGH = "t5:1", "codebook:low", "codebook:high"
TEXT = np.random.default_rng(0).normal(size=(5, TINY.base.text_hidden)).astype(np.float32)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    base = BaseTransformer(TINY.base, rngs=nnx.Rngs(0))
    superres = SuperresTransformer(TINY.superres, rngs=nnx.Rngs(0))
    for stage, config, model, fingerprint in (
        ("base", TINY.base, base, {"encoder": ENCODER, "codebook": LOW}),
        (
            "superres",
            TINY.superres,
            superres,
            {"encoder": ENCODER, "low_codebook": LOW, "codebook": HIGH},
        ),
    ):
        save_checkpoint(
            folder / stage,
            stage=stage,
            config=config,
            parameters={name: np.asarray(value) for name, value in parameters_of(model).items()},
            fingerprint=fingerprint,
            record={"preset": "tiny"},
        )
    return folder


@pytest.fixture(scope="module")
async def base(checkpoints: Path) -> AsyncIterator[Any]:
    settings = base_server.Settings(checkpoints=checkpoints, port=0, max_batch=4)
    async with (
        running_server(await base_server.build(settings), settings) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        yield base_pb2_grpc.BaseServiceStub(channel)


@pytest.fixture(scope="module")
async def superres(checkpoints: Path) -> AsyncIterator[Any]:
    settings = superres_server.Settings(checkpoints=checkpoints, port=0, max_batch=4)
    async with (
        running_server(await superres_server.build(settings), settings) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        yield superres_pb2_grpc.SuperresServiceStub(channel)


def base_request(**changes: Any) -> base_pb2.GenerateRequest:
    """Returns a good request with some fields set to something else."""
    fields: dict[str, Any] = {
        "prompt": pack_embedding(TEXT, ENCODER),
        "sampling": decoding_pb2.Sampling(steps=5, seed=2**64 - 1),
    }
    return base_pb2.GenerateRequest(**(fields | changes))


def superres_request(**changes: Any) -> superres_pb2.GenerateRequest:
    """Returns a good request with some fields set to something else."""
    side = TINY.superres.low_grid
    low = np.arange(side**2).reshape(side, side) % TINY.base.vocabulary
    fields: dict[str, Any] = {
        "prompt": pack_embedding(TEXT, ENCODER),
        "low_tokens": pack_grid(low, LOW),
        "sampling": decoding_pb2.Sampling(steps=3),
    }
    return superres_pb2.GenerateRequest(**(fields | changes))


async def events(stub: Any, request: Message) -> list[Any]:
    """Reads a stream to its end."""
    return [event async for event in stub.Generate(request)]


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_decode_ends_with_all_tokens_of_the_stages_own_codebook(
    base: Any, superres: Any
) -> None:
    low = (await events(base, base_request()))[-1].result
    high = (await events(superres, superres_request(low_tokens=low.tokens)))[-1].result

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


async def test_four_at_a_time_get_what_each_gets_alone(base: Any, superres: Any) -> None:
    negative = pack_embedding(TEXT[::-1], ENCODER)
    for stub, request in ((base, base_request), (superres, superres_request)):
        requests = [
            request(
                sampling=decoding_pb2.Sampling(steps=3 + seed, seed=seed, guidance=3.0),
                **({"negative_prompt": negative} if seed == 2 else {}),
            )
            for seed in range(4)
        ]
        together = await asyncio.gather(*(events(stub, each) for each in requests))
        alone = [await events(stub, each) for each in requests]

        assert [one[-1].result.tokens for one in together] == [
            one[-1].result.tokens for one in alone
        ]
        assert len({one[-1].result.tokens.ids for one in alone}) == 4


@pytest.fixture
def slow_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Makes every dispatch take a tenth of a second longer; says how many steps each took."""
    advance, taken = DecodePool.advance, []

    def slowly(self: DecodePool, steps: int, wanted: Collection[int]) -> dict[int, Progress]:
        time.sleep(0.1)
        taken.append(steps)
        return advance(self, steps, wanted)

    monkeypatch.setattr(DecodePool, "advance", slowly)
    return taken


async def until_busy(base: Any, *, active: int, queued: int = 0) -> None:
    """Waits until so many requests hold a slot and so many wait for one."""
    async with asyncio.timeout(10):
        while True:
            status = (await base.GetStatus(base_pb2.GetStatusRequest())).status
            if (status.active, status.queued) == (active, queued):
                return
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("slow_steps")
async def test_a_short_request_joins_a_long_one_and_is_done_before_it(base: Any) -> None:
    def request(steps: int) -> base_pb2.GenerateRequest:
        return base_request(sampling=decoding_pb2.Sampling(steps=steps, seed=steps))

    alone = [(await events(base, request(steps)))[-1].result.tokens for steps in (16, 2)]
    long = asyncio.create_task(events(base, request(16)))
    await until_busy(base, active=1)
    short = (await events(base, request(2)))[-1].result
    assert not long.done()

    assert [(await long)[-1].result.tokens, short.tokens] == alone
    assert short.timing.compute_s >= 0.1  # its steps may share a dispatch
    assert short.timing.queue_s + short.timing.compute_s < (await long)[-1].result.timing.compute_s


@pytest.mark.parametrize("end", ["deadline", "cancel"])
async def test_a_request_nobody_waits_for_frees_its_slot_long_before_its_last_step(
    base: Any, slow_steps: list[int], end: str
) -> None:
    request = base_request(sampling=decoding_pb2.Sampling(steps=16))
    call = base.Generate(request, timeout=0.5 if end == "deadline" else None)
    if end == "cancel":
        await until_busy(base, active=1)
        call.cancel()
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await call.read()
    await until_busy(base, active=0)

    assert 0 < sum(slow_steps) < 12
    assert (await events(base, base_request()))[-1].HasField("result")


@pytest.mark.usefixtures("slow_steps")
async def test_a_server_that_is_told_to_stop_ends_the_decodes_it_accepted(
    checkpoints: Path, base: Any
) -> None:
    request = base_request(sampling=decoding_pb2.Sampling(steps=10))
    settings = base_server.Settings(checkpoints=checkpoints, port=0, max_batch=1)
    service = await base_server.build(settings)
    async with running_server(service, settings) as running:
        channel = grpc.aio.insecure_channel(running.address)
        stub: Any = base_pb2_grpc.BaseServiceStub(channel)
        calls = [asyncio.create_task(events(stub, request)) for _ in range(2)]  # one has to wait
        await until_busy(stub, active=1, queued=1)

    assert not any(call.cancelled() for call in calls)
    expected = (await events(base, request))[-1].result.tokens
    assert [(await call)[-1].result.tokens for call in calls] == [expected] * 2
    await channel.close()


@pytest.mark.usefixtures("slow_steps")
async def test_what_a_stopping_server_cannot_finish_goes_on_elsewhere_to_the_same_tokens(
    checkpoints: Path, base: Any
) -> None:
    request = base_request(sampling=decoding_pb2.Sampling(steps=16, seed=3, guidance=2.0))
    settings = base_server.Settings(checkpoints=checkpoints, port=0, max_batch=1, grace_s=1.0)
    async with running_server(await base_server.build(settings), settings) as running:
        channel = grpc.aio.insecure_channel(running.address)
        stub: Any = base_pb2_grpc.BaseServiceStub(channel)
        calls = [asyncio.create_task(events(stub, request))]
        await until_busy(stub, active=1)
        calls.append(asyncio.create_task(events(stub, request)))
        await until_busy(stub, active=1, queued=1)

    states = [(await call)[-1].handed_back for call in calls]
    assert 0 < states[0].step < 16
    assert states[1].step == 0
    expected = (await events(base, request))[-1].result.tokens
    for state in states:
        resumed = base_pb2.GenerateRequest(resume=state)
        resumed.MergeFrom(request)
        assert (await events(base, resumed))[-1].result.tokens == expected
    await channel.close()


@pytest.mark.usefixtures("slow_steps")
async def test_a_decode_is_cut_down_to_its_deadline_only_where_the_request_allows_it(
    checkpoints: Path, base: Any
) -> None:
    settings = base_server.Settings(checkpoints=checkpoints, port=0, max_batch=2)
    async with (
        running_server(await base_server.build(settings), settings) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        stub: Any = base_pb2_grpc.BaseServiceStub(channel)
        long = base_request(sampling=decoding_pb2.Sampling(steps=16))
        call = asyncio.create_task(events(stub, long))
        await until_busy(stub, active=1)
        await events(stub, base_request())  # measures what two at a time take

        willing = base_request(sampling=decoding_pb2.Sampling(steps=16, minimum_steps=2, seed=1))
        (cut,) = [event async for event in stub.Generate(willing, timeout=1.5)]
        await call
        call = asyncio.create_task(events(stub, long))
        await until_busy(stub, active=1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(long, timeout=0.5).read()
        await call

    assert 2 <= cut.result.steps < 16
    short = base_request(sampling=decoding_pb2.Sampling(steps=cut.result.steps, seed=1))
    assert (await events(base, short))[-1].result.tokens == cut.result.tokens
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (read_error(caught.value).retry_after_s or 0) > 0


async def test_a_step_that_raises_is_internal_with_an_id_and_the_next_request_works(
    base: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: DecodePool, steps: int, wanted: Collection[int]) -> dict[int, Progress]:
        raise OSError("the device has gone")

    with monkeypatch.context() as patch:
        patch.setattr(DecodePool, "advance", fail)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await events(base, base_request())

    (record,) = [record for record in caplog.records if "failure" in record.__dict__]
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert record.__dict__["failure"] in str(caught.value.details())
    assert "device has gone" in str(record.exc_info)
    assert (await events(base, base_request()))[-1].HasField("result")


async def test_no_request_makes_a_serving_stage_compile(
    base: Any, superres: Any, nothing_compiles: Callable[[], AbstractContextManager[None]]
) -> None:
    random = np.random.default_rng(1)

    def any_request(make: Callable[..., Message]) -> Message:
        words = random.normal(size=(random.integers(1, 32), TINY.base.text_hidden))
        sampling = decoding_pb2.Sampling(
            steps=random.integers(1, 257),
            guidance=random.choice([0.0, 5.0]),
            first_guidance=random.choice([0.0, 2.0]),
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
        return make(**changes)

    with nothing_compiles():
        for _ in range(4):
            calls = [events(base, any_request(base_request)) for _ in range(5)]
            calls += [events(superres, any_request(superres_request)) for _ in range(3)]
            for told in await asyncio.gather(*calls):
                assert told[-1].HasField("result")


async def test_every_step_is_told_and_any_of_its_states_can_be_resumed(base: Any) -> None:
    quiet = (await events(base, base_request()))[-1].result.tokens
    told = await events(base, base_request(progress=decoding_pb2.PROGRESS_DETAIL_STATES))

    assert [event.progress.step for event in told[:-1]] == [1, 2, 3, 4, 5]
    assert told[-1].result.tokens == quiet
    for event in told[:-1]:
        resumed = await events(base, base_request(resume=event.progress.state))
        assert resumed[-1].result.tokens == quiet


async def test_known_tokens_of_a_grid_that_is_handed_in_stay(base: Any) -> None:
    grid = np.full((TINY.base.grid, TINY.base.grid), 7)
    known = np.zeros(grid.size, np.uint8)
    known[3:9] = 1
    resume = decoding_pb2.DecodeState(tokens=pack_grid(grid, LOW), known=known.tobytes())

    result = (await events(base, base_request(resume=resume)))[-1].result

    ids = np.frombuffer(result.tokens.ids, "<u2")
    assert np.all(ids[3:9] == 7)
    assert np.any(ids != 7)


async def test_the_status_names_what_is_served(superres: Any) -> None:
    status = (await superres.GetStatus(superres_pb2.GetStatusRequest())).status

    assert (status.stage, status.preset) == ("superres", "tiny")
    assert dict(status.fingerprints) == {
        "encoder": ENCODER,
        "low_codebook": LOW,
        "codebook": HIGH,
    }
    assert status.checkpoints["superres"].startswith("sha256:")


TRUNCATED = pack_embedding(TEXT, ENCODER)
TRUNCATED.values.data = TRUNCATED.values.data[:-3]
RESUMED: dict[str, Any] = {
    "tokens": pack_grid(np.zeros((4, 4), int), LOW),
    "known": bytes(16),
    "unknown": 16,
}
CONTRADICTION = decoding_pb2.DecodeState(**RESUMED, step=3)


@pytest.mark.parametrize(
    ("changes", "code", "named"),
    [
        ({"sampling": decoding_pb2.Sampling(steps=0)}, "INVALID_ARGUMENT", "sampling.steps"),
        ({"sampling": decoding_pb2.Sampling(steps=10_000)}, "INVALID_ARGUMENT", "sampling.steps"),
        (
            {"resume": decoding_pb2.DecodeState(**RESUMED, step=1, total=10_000)},
            "INVALID_ARGUMENT",
            "resume.total",
        ),
        (
            {"sampling": decoding_pb2.Sampling(steps=4, minimum_steps=5)},
            "INVALID_ARGUMENT",
            "sampling.minimum_steps",
        ),
        (
            {"sampling": decoding_pb2.Sampling(guidance=float("nan"))},
            "INVALID_ARGUMENT",
            "sampling.guidance",
        ),
        (
            {"sampling": decoding_pb2.Sampling(temperature=-1.0)},
            "INVALID_ARGUMENT",
            "sampling.temperature",
        ),
        ({"prompt": TRUNCATED}, "INVALID_ARGUMENT", "prompt.values.data"),
        ({"prompt": pack_embedding(TEXT * np.nan, ENCODER)}, "INVALID_ARGUMENT", "prompt.values"),
        ({"prompt": pack_embedding(TEXT, "t5:other")}, "FAILED_PRECONDITION", "t5:other"),
        ({"resume": CONTRADICTION}, "INVALID_ARGUMENT", "resume"),
    ],
)
async def test_bad_input_is_refused_by_name_and_the_next_request_works(
    base: Any, changes: dict[str, Any], code: str, named: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await events(base, base_request(**changes))
    refusal = read_error(caught.value)

    assert refusal.code.name == code
    assert named in refusal.message
    if code == "INVALID_ARGUMENT":
        assert refusal.violations[0].field == named
    assert (await events(base, base_request()))[-1].HasField("result")


async def test_low_tokens_of_another_codebook_are_refused_with_both_names(superres: Any) -> None:
    grid = pack_grid(np.zeros((4, 4), int), HIGH)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await events(superres, superres_request(low_tokens=grid))

    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert LOW in str(caught.value.details())
    assert HIGH in str(caught.value.details())
