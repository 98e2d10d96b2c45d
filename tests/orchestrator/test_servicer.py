"""The orchestrator over stages that die, restart, disagree, hang and fail."""

import asyncio
import time
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from muse.common.v1.caller_pb2 import PRIORITY_BATCH, Caller
from muse.common.v1.decoding_pb2 import Sampling

from services.orchestrator.__main__ import Settings, build
from services.orchestrator.calls import TRIES
from services.runtime.server.process import ServerError
from services.runtime.wire.errors import RequestError, unavailable
from services.stages import STAGES
from tests.small_stages import ZEBRA_WARNING, House
from tests.waiting import until


def kinds(events: list[Any]) -> list[str]:
    """The names of events, in order."""
    return [event.WhichOneof("event") for event in events]


def block(behaviour: Any, gate: asyncio.Event, *, seed: int | None = None) -> asyncio.Event:
    """Makes a stage wait for the gate, for one seed or for all; tells when it waits."""
    entered = asyncio.Event()

    async def around(of_seed: int) -> None:
        if seed is None or of_seed == seed:
            entered.set()
            await gate.wait()

    behaviour.around = around
    return entered


def fail(behaviour: Any, error: RequestError, *, times: int) -> None:
    """Makes a stage refuse that many calls."""
    left = times

    async def around(seed: int) -> None:
        nonlocal left
        if left:
            left -= 1
            raise error

    behaviour.around = around


async def test_a_request_passes_every_stage_in_order(house: House) -> None:
    events = await house.events(progress=True)

    received = [
        (event.progress.stage, event.progress.step)
        for event in events
        if event.HasField("progress")
    ]
    assert received == [
        ("text_encoder", 1),
        *(("base", step) for step in range(1, 6)),
        *(("superres", step) for step in range(1, 4)),
        ("tokenizer", 1),
    ]
    assert kinds(events)[0] == "accepted"
    assert kinds(events)[-2:] == ["image", "done"]
    timings = events[-2].image.timings
    assert [timing.stage for timing in timings] == list(STAGES)
    assert all(timing.transfer_s > 0 for timing in timings)


async def test_a_warning_of_the_text_encoder_follows_accepted(house: House) -> None:
    events = await house.events(prompt="a zebra")

    assert kinds(events) == ["accepted", "warning", "image", "done"]
    assert events[1].warning == ZEBRA_WARNING


async def test_requests_after_the_first_ask_no_stage_for_its_status(house: House) -> None:
    before = [stage.statuses for stage in house.stages.values()]
    for _ in range(3):
        assert await house.works()

    assert [stage.statuses for stage in house.stages.values()] == before == [1] * 4


async def test_base_and_superres_hear_who_asks_and_how_urgent_it_is(house: House) -> None:
    await house.events(caller=Caller(priority=PRIORITY_BATCH, id="nightly"))

    passed_on = Caller(priority=PRIORITY_BATCH, id="127.0.0.1")  # anyone may invent a name
    assert [house.stages[name].asked[0].caller for name in ("base", "superres")] == [passed_on] * 2


async def test_unset_sampling_parameters_get_the_stages_defaults_and_the_provenance_names_them(
    house: House,
) -> None:
    events = await house.events(base=Sampling(guidance_scale=0))

    provenance = events[-1].done.provenance
    assert provenance.base == Sampling(steps=5, guidance_scale=0)
    assert provenance.superres == Sampling(steps=3, top_k=7)
    assert house.stages["base"].asked[0].sampling == Sampling(steps=5, guidance_scale=0, seed=7)
    assert dict(provenance.checkpoints) == {name: f"sha256:{name}" for name in STAGES}


@pytest.mark.parametrize("name", STAGES)
async def test_a_stage_that_dies_during_a_request_is_named_and_the_next_works_once_it_is_back(
    house: House, name: str
) -> None:
    entered = block(house.stages[name], asyncio.Event())
    request = asyncio.create_task(house.refusal())
    await asyncio.wait_for(entered.wait(), 5)
    await house.lines[name].cut()

    refusal = await request
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert name in refusal.message
    while_away = await house.refusal()
    assert (while_away.code, name in while_away.message) == (grpc.StatusCode.UNAVAILABLE, True)

    house.stages[name].around = None
    await house.lines[name].restore()
    await asyncio.sleep(1.2)  # longer than the channel waits before it tries the address again
    assert await house.works()


async def test_unavailable_is_retried_and_each_step_is_reported_once(house: House) -> None:
    base = house.stages["base"]
    base.steps_before_around = 3
    fail(base, unavailable("just a moment"), times=2)

    events = await house.events(progress=True)

    steps = [event.progress.step for event in events if event.progress.stage == "base"]
    assert steps == [1, 2, 3, 4, 5]
    assert kinds(events)[-1] == "done"
    assert len(base.asked) == 3


async def test_no_preview_is_lost_by_a_tokenizer_that_is_away_for_a_while(house: House) -> None:
    def previews(events: list[Any]) -> list[tuple[str, int]]:
        return [
            (event.progress.stage, event.progress.step)
            for event in events
            if event.progress.HasField("preview")
        ]

    expected = previews(await house.events(preview_every=2))
    fail(house.stages["tokenizer"], unavailable("just a moment"), times=TRIES)

    events = await house.events(preview_every=2)

    assert len(expected) == 5
    assert previews(events) == expected
    assert kinds(events)[-1] == "done"


async def test_a_preempted_decode_goes_on_from_there_and_no_step_is_reported_twice(
    house: House,
) -> None:
    base = house.stages["base"]
    base.preempts_at = [2, 4]
    starts: list[int] = []
    original = base.enter

    async def enter(request: Any, context: Any, seed: int = 0) -> None:
        starts.append(request.resume.step)
        await original(request, context, seed)

    base.enter, base.steps_before_around = enter, 4

    events = await house.events(progress=True)

    steps = [event.progress.step for event in events if event.progress.stage == "base"]
    assert steps == [1, 2, 3, 4, 5]
    assert starts == [4]
    assert base.preempts_at == []
    assert kinds(events)[-1] == "done"


async def test_it_is_not_tried_for_ever(house: House) -> None:
    fail(house.stages["tokenizer"], unavailable("gone"), times=100)

    refusal = await house.refusal()

    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert refusal.message == "stage tokenizer cannot be reached: gone"
    assert len(house.stages["tokenizer"].asked) == TRIES


async def test_it_is_not_tried_again_without_time_left(house: House) -> None:
    fail(house.stages["base"], unavailable("gone"), times=100)

    refusal = await house.refusal(timeout_s=0.25)

    assert refusal.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert len(house.stages["base"].asked) == 2  # pauses of 0.1 s and, no longer left, 0.2 s


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.FAILED_PRECONDITION,
    ],
)
async def test_nothing_but_unavailable_is_tried_again(house: House, code: grpc.StatusCode) -> None:
    fail(house.stages["superres"], RequestError(code, "no", retry_after_s=0.5), times=1)

    refusal = await house.refusal()

    assert (refusal.code, refusal.message) == (code, "stage superres: no")
    assert refusal.retry_after_s == 0.5
    assert len(house.stages["superres"].asked) == 1
    assert await house.works()


async def test_a_call_that_the_stage_cancels_is_an_error_and_no_missing_picture(
    house: House,
) -> None:
    fail(house.stages["base"], RequestError(grpc.StatusCode.CANCELLED, "cut off"), times=100)

    refusal = await house.refusal(count=2)

    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert "base" in refusal.message


async def test_a_stage_back_with_another_checkpoint_is_refused_with_both_names(
    house: House,
) -> None:
    assert await house.works()
    encoder = house.stages["text_encoder"]
    await house.lines["text_encoder"].cut()
    encoder.fingerprints["encoder"] = "t5:other"
    await house.lines["text_encoder"].restore()
    await until(lambda: encoder.statuses == 1)
    await asyncio.sleep(1.2)

    refusal = await house.refusal()

    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert "t5:other" in refusal.message
    assert "t5:one" in refusal.message
    assert len(encoder.asked) == 1  # the one request before: this one called no stage
    encoder.fingerprints["encoder"] = "t5:one"
    assert await house.works()


async def test_a_stage_that_says_failed_precondition_makes_the_next_request_ask_again(
    house: House,
) -> None:
    mismatch = RequestError(grpc.StatusCode.FAILED_PRECONDITION, "expected a, got b")
    fail(house.stages["base"], mismatch, times=1)
    assert (await house.refusal()).code is grpc.StatusCode.FAILED_PRECONDITION
    asked = house.stages["base"].statuses

    assert await house.works()
    assert house.stages["base"].statuses == asked + 1


async def test_a_caller_who_leaves_frees_the_stage(house: House) -> None:
    base = house.stages["base"]
    entered = block(base, asyncio.Event())
    call = house.stub.Generate(house.request(count=3))
    assert (await call.read()).WhichOneof("event") == "accepted"
    await asyncio.wait_for(entered.wait(), 5)
    await until(lambda: len(base.asked) == 3)
    call.cancel()

    await until(lambda: base.cancelled == 3)
    base.around = None
    assert await house.works()


async def test_the_deadline_travels_to_every_stage(house: House) -> None:
    async def around(seed: int) -> None:
        await asyncio.sleep(0.5)

    house.stages["text_encoder"].around = around
    await house.events(timeout_s=3)

    first, *later = (house.stages[name].left_s[0] for name in STAGES)
    assert 2 < first <= 3 * 1.02  # gRPC rounds up on the wire
    assert all(0 < left_s < 2.6 for left_s in later)


async def test_a_deadline_that_passes_frees_the_stage(house: House) -> None:
    block(house.stages["superres"], asyncio.Event())
    begun = time.monotonic()

    refusal = await house.refusal(timeout_s=0.5)

    assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - begun < 3
    await until(lambda: house.stages["superres"].cancelled == 1)


async def test_without_a_deadline_a_stage_has_none(house: House) -> None:
    await house.events(timeout_s=None)

    assert house.stages["base"].left_s == [None]


async def test_each_picture_moves_on_by_itself(house: House) -> None:
    gate = asyncio.Event()
    entered = block(house.stages["base"], gate, seed=8)  # the second picture's
    call = house.stub.Generate(house.request(count=3), timeout=20)
    done = []
    async for event in call:
        if event.HasField("image"):
            done.append(event.image.index)
            if len(done) == 2:
                assert entered.is_set()
                gate.set()

    assert sorted(done[:2]) == [0, 2]
    assert done[2] == 1


async def test_one_picture_that_fails_ends_the_request_and_those_before_it_stay(
    house: House,
) -> None:
    gate = asyncio.Event()

    async def around(seed: int) -> None:
        if seed != 7:
            await gate.wait()
        if seed == 8:
            raise RequestError(grpc.StatusCode.INTERNAL, "a broken picture")

    house.stages["superres"].around = around
    events = []

    async def read() -> None:
        async for event in house.stub.Generate(house.request(count=3), timeout=20):
            events.append(event)
            if event.HasField("image"):
                gate.set()

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read()

    assert kinds(events) == ["accepted", "image"]
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == "stage superres: a broken picture"
    house.stages["superres"].around = None
    assert await house.works()


async def test_it_goes_on_saying_serving_while_a_stage_is_away(house: House) -> None:
    await house.lines["base"].cut()
    assert "base" in (await house.refusal()).message

    answer = await house.health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_it_does_not_start_over_stages_that_contradict_each_other(house: House) -> None:
    house.stages["superres"].fingerprints["low_codebook"] = "codebook:other"
    addresses: Any = {name: f"127.0.0.1:{line.port}" for name, line in house.lines.items()}
    service = await build(Settings(port=0, **addresses))

    with pytest.raises(ServerError, match="codebook:other") as caught:
        await service.warm_up()
    await service.close()

    assert "codebook:low" in str(caught.value)
