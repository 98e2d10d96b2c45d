"""The Python client, blocking and asynchronous, against an orchestrator that really serves."""

import asyncio
import hashlib
import socket
from contextlib import aclosing
from typing import Any

import grpc
import numpy as np
import pytest
from muse.common.v1.decoding_pb2 import Sampling
from muse_client import (
    Accepted,
    AsyncMuseClient,
    CheckpointConflict,
    DeadlineExceeded,
    Done,
    GeneratedImage,
    InvalidRequest,
    MuseClient,
    MuseError,
    MuseWarning,
    NotFound,
    NotServed,
    Overloaded,
    Progress,
    RequestWarning,
    Unavailable,
)
from muse_client.errors import muse_error

from services.runtime.wire.errors import RequestError, resource_exhausted
from tests.small_stages import ZEBRA_WARNING, House
from tests.waiting import until


async def test_both_clients_return_the_same_pictures_in_order(house: House) -> None:
    async with AsyncMuseClient(house.address) as client:
        asynchronous = await client.generate("a fox", seed=2**64 - 1, count=3)
    with MuseClient(house.address) as client:
        blocking = await asyncio.to_thread(client.generate, "a fox", seed=2**64 - 1, count=3)

    assert [picture.seed for picture in blocking] == [2**64 - 1, 0, 1]
    assert [picture.index for picture in blocking] == [0, 1, 2]
    assert [picture.png for picture in blocking] == [picture.png for picture in asynchronous]
    assert blocking[1].image.size == (8, 8)
    assert [row.stage for row in blocking[0].timings] == [
        "text_encoder",
        "base",
        "superres",
        "tokenizer",
    ]


async def test_adapters_are_named_with_their_weights(house: House) -> None:
    async with AsyncMuseClient(house.address) as client:
        await client.generate("a fox", adapters={"fox": 1, "owl": 0.25})
        with pytest.raises(NotFound, match="expected one of fox, owl, got 'cat'"):
            await client.generate("a fox", adapters={"cat": 1})
        wrong: Any = "much"
        with pytest.raises(InvalidRequest, match="expected a name and a number, got 'fox': 'much'"):
            await client.generate("a fox", adapters={"fox": wrong})

    (request,) = house.stages["base"].asked
    assert [(each.name, each.weight) for each in request.adapters] == [("fox", 1), ("owl", 0.25)]


async def test_a_warning_is_an_event_and_a_python_warning_of_generate(house: House) -> None:
    with MuseClient(house.address) as client:
        with pytest.warns(MuseWarning, match='no caption had "zebra"'):
            images = await asyncio.to_thread(client.generate, "a zebra")
        events = await asyncio.to_thread(lambda: list(client.events("a zebra")))
    async with AsyncMuseClient(house.address) as client:
        with pytest.warns(MuseWarning, match='no caption had "zebra"'):
            await client.generate("a zebra")

    assert len(images) == 1
    assert events[1] == RequestWarning(
        reason="UNKNOWN_WORDS", message=ZEBRA_WARNING.message, words=("zebra",)
    )


async def test_a_picture_says_what_was_decoded_for_it(house: House) -> None:
    async with AsyncMuseClient(house.address) as client:
        one, other = await client.generate("a fox", seed=7, count=2, base=Sampling(steps=3))

    assert [(each.stage, each.steps) for each in one.decodes] == [("base", 3), ("superres", 3)]
    ids = np.full((2, 2), 7, "<u2").tobytes()  # what the small stages make of a seed
    assert one.decodes[0].tokens == f"sha256:{hashlib.sha256(ids).hexdigest()}"
    assert other.decodes[0].tokens != one.decodes[0].tokens


async def test_events_tell_every_step_of_every_stage_then_the_picture_then_the_end(
    house: House,
) -> None:
    parameters = {"base": Sampling(steps=3), "superres": Sampling(steps=2)}
    async with AsyncMuseClient(house.address) as client:
        events = [event async for event in client.events("a fox", seed=5, **parameters)]

    assert events[0] == Accepted(seed=5, count=1)
    steps = [
        (event.stage, event.step, event.total) for event in events if isinstance(event, Progress)
    ]
    assert steps == [
        ("text_encoder", 1, 1),
        ("base", 1, 3),
        ("base", 2, 3),
        ("base", 3, 3),
        ("superres", 1, 2),
        ("superres", 2, 2),
        ("tokenizer", 1, 1),
    ]
    assert isinstance(events[-2], GeneratedImage)
    assert isinstance(events[-1], Done)
    assert events[-1].provenance.base.steps == 3
    assert events[-1].total_s > 0


async def test_a_reader_who_leaves_cancels_the_stages(house: House) -> None:
    entered, gate = asyncio.Event(), asyncio.Event()

    async def around(seed: int) -> None:
        entered.set()
        await gate.wait()

    house.stages["superres"].around = around
    async with (
        AsyncMuseClient(house.address) as client,
        aclosing(client.events("a fox")) as events,
    ):
        async for event in events:
            if isinstance(event, Progress) and event.stage == "base":
                await asyncio.wait_for(entered.wait(), 5)
                break
    await until(lambda: house.stages["superres"].cancelled == 1)


async def test_a_refused_field_is_an_invalid_request_that_names_it(house: House) -> None:
    async with AsyncMuseClient(house.address) as client:
        with pytest.raises(InvalidRequest) as refused:
            await client.generate("a fox", base=Sampling(guidance_scale=float("nan")))
        assert [violation.field for violation in refused.value.violations] == [
            "base.guidance_scale"
        ]
        assert len(await client.generate("a fox")) == 1


@pytest.mark.parametrize(
    ("field", "value"), [("seed", -1), ("seed", 2**64), ("count", -1), ("count", 2**32)]
)
def test_a_number_that_does_not_fit_the_wire_is_refused_before_a_call(
    field: str, value: int
) -> None:
    with MuseClient("127.0.0.1:1") as client, pytest.raises(InvalidRequest) as refused:
        client.generate("a fox", **{field: value})
    assert [violation.field for violation in refused.value.violations] == [field]
    assert f"got {value}" in refused.value.message


async def test_a_time_that_is_too_short_is_deadline_exceeded(house: House) -> None:
    gate = asyncio.Event()
    house.stages["base"].around = lambda seed: gate.wait()
    async with AsyncMuseClient(house.address, timeout_s=0.3) as client:
        with pytest.raises(DeadlineExceeded):
            await client.generate("a fox")


async def test_a_full_stage_is_overloaded_and_says_when_to_try_again(house: House) -> None:
    async def around(seed: int) -> None:
        raise resource_exhausted("64 requests wait", retry_after_s=1.5)

    house.stages["base"].around = around
    async with AsyncMuseClient(house.address) as client:
        with pytest.raises(Overloaded) as refused:
            await client.generate("a fox")
    assert refused.value.retry_after_s == 1.5


async def test_stages_of_other_checkpoints_are_a_checkpoint_conflict(house: House) -> None:
    house.stages["tokenizer"].fingerprints["codebook"] = "codebook:other"
    await house.lines["tokenizer"].cut()
    await house.lines["tokenizer"].restore()

    async def ask_until_the_lost_connection_is_noticed(client: AsyncMuseClient) -> None:
        for _ in range(50):
            await client.generate("a fox")
            await asyncio.sleep(0.05)

    async with AsyncMuseClient(house.address) as client:
        with pytest.raises(CheckpointConflict, match="codebook:other"):
            await ask_until_the_lost_connection_is_noticed(client)


async def test_an_answer_of_another_kind_keeps_its_code(house: House) -> None:
    async def around(seed: int) -> None:
        raise RequestError(grpc.StatusCode.NOT_FOUND, "no such thing")

    house.stages["text_encoder"].around = around
    async with AsyncMuseClient(house.address) as client:
        with pytest.raises(NotFound, match="no such thing"):
            await client.generate("a fox")


def test_an_address_without_a_server_is_unavailable_and_named() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with MuseClient(address) as client:
        with pytest.raises(Unavailable, match=f"no orchestrator answers at {address}"):
            client.generate("a fox")
        with pytest.raises(Unavailable, match=f"no orchestrator answers at {address}"):
            client.status()


class Ended(grpc.RpcError):
    """A call that ended with a code and nothing else."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self.code, self.details, self.trailing_metadata = lambda: code, lambda: "", lambda: ()


@pytest.mark.parametrize(
    ("code", "kind"),
    [(grpc.StatusCode.UNIMPLEMENTED, NotServed), (grpc.StatusCode.DATA_LOSS, MuseError)],
)
def test_every_code_is_a_muse_error(code: grpc.StatusCode, kind: type[MuseError]) -> None:
    error = muse_error(Ended(code), "here:1")
    assert type(error) is kind
    assert error.code is code


async def test_status_names_every_stage(house: House) -> None:
    async with AsyncMuseClient(house.address) as client:
        asynchronous = await client.status()
    with MuseClient(house.address) as client:
        blocking = await asyncio.to_thread(client.status)
    assert [report.stage for report in blocking.stages] == [
        "text_encoder",
        "base",
        "superres",
        "tokenizer",
    ]
    assert asynchronous == blocking
