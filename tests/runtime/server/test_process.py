"""The process around a servicer, over real gRPC."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from muse.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc

from services.runtime.checkpoints.errors import CheckpointMismatch, CheckpointNotFound
from services.runtime.server.channels import channel_options
from services.runtime.server.process import (
    LIVENESS,
    READINESS,
    RunningServer,
    ServerError,
    Service,
    running_server,
)
from services.runtime.server.settings import ServerSettings, StageSettings
from services.runtime.wire.errors import invalid_field, read_error, resource_exhausted

FULL_NAME = "muse.tokenizer.v1.TokenizerService"
Request = tokenizer_pb2.DecodeRequest
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Thrower(tokenizer_pb2_grpc.TokenizerServiceServicer):
    """Raises the error it was given, or answers once its gate is open."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.entered, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.cancelled = asyncio.Event()
        self.closed = False
        self.taken_up = asyncio.Semaphore(0)  # released by every call

    async def Decode(self, request: Request, context: Any) -> tokenizer_pb2.DecodeResponse:
        self.taken_up.release()
        self.entered.set()
        if self.error is not None:
            raise self.error
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return tokenizer_pb2.DecodeResponse()


def service_of(servicer: Thrower, warmed: asyncio.Event | None = None) -> Service:
    async def warm_up() -> None:
        if warmed is not None:
            await warmed.wait()

    async def close() -> None:
        servicer.closed = True

    return Service(
        name="tokenizer",
        servicer=servicer,
        warm_up=warm_up,
        close=close,
    )


@asynccontextmanager
async def serving(
    servicer: Thrower, **settings: Any
) -> AsyncIterator[tuple[RunningServer, grpc.aio.Channel, Any]]:
    async with (
        running_server(service_of(servicer), ServerSettings(**settings)) as running,
        grpc.aio.insecure_channel(running.address, channel_options()) as channel,
    ):
        yield running, channel, tokenizer_pb2_grpc.TokenizerServiceStub(channel)


async def health_of(channel: grpc.aio.Channel, name: str = FULL_NAME) -> int:
    request = health_pb2.HealthCheckRequest(service=name)
    return int((await health_pb2_grpc.HealthStub(channel).Check(request)).status)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_every_error_becomes_its_status_and_the_next_call_works() -> None:
    servicer = Thrower()
    async with serving(servicer) as (_, _, stub):
        for error, code in (
            (invalid_field("steps", expected="1 to 9", got=0), grpc.StatusCode.INVALID_ARGUMENT),
            (resource_exhausted("full", retry_after_s=0.25), grpc.StatusCode.RESOURCE_EXHAUSTED),
            (CheckpointNotFound("none there"), grpc.StatusCode.NOT_FOUND),
            (CheckpointMismatch("another shape"), grpc.StatusCode.FAILED_PRECONDITION),
            (KeyError("secret"), grpc.StatusCode.INTERNAL),
        ):
            servicer.error = error
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Decode(Request())
            assert caught.value.code() is code
            assert "secret" not in str(caught.value.details())
        servicer.error = None

        assert await stub.Decode(Request()) == tokenizer_pb2.DecodeResponse()


async def test_the_caller_reads_the_field_and_the_delay_back() -> None:
    servicer = Thrower()
    async with serving(servicer) as (_, _, stub):
        servicer.error = invalid_field("steps", expected="1 to 9", got="x" * 500)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Decode(Request())
        servicer.error = resource_exhausted("full", retry_after_s=0.25)
        with pytest.raises(grpc.aio.AioRpcError) as full:
            await stub.Decode(Request())

    violation = read_error(refused.value).violations[0]
    assert violation.field == "steps"
    assert "expected 1 to 9" in violation.description
    assert len(violation.description) < 150
    assert read_error(full.value).retry_after_s == 0.25


async def test_health_says_serving_only_after_warm_up() -> None:
    servicer, warmed = Thrower(), asyncio.Event()
    reserved = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = reserved.sockets[0].getsockname()[1]
    reserved.close()
    await reserved.wait_closed()

    async def run() -> int:
        settings = ServerSettings(port=port)
        async with running_server(service_of(servicer, warmed), settings):
            return await health_of(channel)

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        server = asyncio.create_task(run())
        await asyncio.wait_for(channel.channel_ready(), 10)
        before = await health_of(channel)
        warmed.set()

        assert (before, await server) == (NOT_SERVING, SERVING)
    assert servicer.closed


async def reflected(
    channel: grpc.aio.Channel, service: str, request: reflection_pb2.ServerReflectionRequest
) -> reflection_pb2.ServerReflectionResponse:
    """Asks a reflection service; messages of v1 and v1alpha are the same on the wire."""
    call = channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )(iter([request]))
    (answer,) = [each async for each in call]
    return answer


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_every_service_and_describes_it(version: str) -> None:
    service = f"grpc.reflection.{version}.ServerReflection"
    async with serving(Thrower()) as (_, channel, _):
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        listed = (await reflected(channel, service, request)).list_services_response.service
        names = {each.name for each in listed}
        files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
        for name in names:
            request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=name)
            answer = (await reflected(channel, service, request)).file_descriptor_response
            files[name] = descriptor_pb2.FileDescriptorProto.FromString(
                answer.file_descriptor_proto[0]
            )

    assert {FULL_NAME, "grpc.health.v1.Health", service} <= names
    for name, file in files.items():
        assert name in {f"{file.package}.{each.name}" for each in file.service}
    (method,) = files[service].service[0].method
    assert method.input_type == f".grpc.reflection.{version}.ServerReflectionRequest"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, True),
        ({"host": "127.0.9.1"}, True),
        ({"host": "[::1]"}, True),
        ({"host": "localhost"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "[::]"}, False),
        ({"host": "10.1.2.3"}, False),
        ({"host": "muse.example"}, False),
        ({"host": "0.0.0.0", "introspection": True}, True),
        ({"introspection": False}, False),
    ],
)
def test_a_server_describes_itself_to_this_machine_alone_unless_it_is_told_to(
    settings: dict[str, Any], expected: bool
) -> None:
    assert ServerSettings(insecure=True, **settings).introspects is expected


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_reflection_and_channelz_answer_on_loopback_only(host: str) -> None:
    async with (
        running_server(service_of(Thrower()), ServerSettings(host=host, insecure=True)) as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel,
    ):
        for method in (
            "/grpc.channelz.v1.Channelz/GetServers",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ):
            call = channel.stream_stream(method)(iter([b""]), timeout=10)
            with suppress(grpc.aio.AioRpcError):
                assert len([answer async for answer in call]) == 1
            answered = await call.code() is grpc.StatusCode.OK
            assert answered == (host == "127.0.0.1")
        assert await health_of(channel) == SERVING


async def test_a_server_that_warms_up_lives_but_is_not_ready() -> None:
    warmed = asyncio.Event()
    port = free_port()
    starting = running_server(service_of(Thrower(), warmed), ServerSettings(port=port))
    entering = asyncio.create_task(starting.__aenter__())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await asyncio.wait_for(channel.channel_ready(), 10)

        assert await health_of(channel, LIVENESS) == SERVING
        assert await health_of(channel, READINESS) == NOT_SERVING
        warmed.set()
        await entering
        assert await health_of(channel, LIVENESS) == SERVING
        assert await health_of(channel, READINESS) == SERVING
    await starting.__aexit__(None, None, None)


async def test_a_call_under_way_is_answered_before_the_server_ends() -> None:
    servicer = Thrower()
    servicer.gate.clear()
    async with serving(servicer) as (_, _, stub):
        call = asyncio.ensure_future(stub.Decode(Request()))
        await servicer.entered.wait()
        asyncio.get_running_loop().call_later(0.2, servicer.gate.set)
        # leaving the inner block first would close the channel: drain the server alone
        async with running_server(service_of(servicer), ServerSettings()) as other:
            second = grpc.aio.insecure_channel(other.address)
            late = asyncio.ensure_future(
                tokenizer_pb2_grpc.TokenizerServiceStub(second).Decode(Request())
            )
            await asyncio.sleep(0.1)

        assert await late == tokenizer_pb2.DecodeResponse()
        assert await call == tokenizer_pb2.DecodeResponse()
        await second.close()


async def test_a_stopping_server_cuts_off_no_answer_and_ends_the_watches() -> None:
    for _ in range(20):  # an answer that is cut off is a matter of luck
        servicer = Thrower()
        servicer.gate.clear()
        async with running_server(service_of(servicer), ServerSettings()) as running:
            channel = grpc.aio.insecure_channel(running.address)
            stub = tokenizer_pb2_grpc.TokenizerServiceStub(channel)
            health = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == SERVING
            calls = [asyncio.ensure_future(stub.Decode(Request())) for _ in range(2)]
            for _ in calls:  # one that no handler has taken up would be refused
                await servicer.taken_up.acquire()
            asyncio.get_running_loop().call_later(0.01, servicer.gate.set)

        assert await asyncio.gather(*calls) == [tokenizer_pb2.DecodeResponse()] * 2
        assert (await watch.read()).status == NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError, match="this server stops"):
            await watch.read()
        await channel.close()


async def test_a_deadline_cancels_the_handler() -> None:
    servicer = Thrower()
    servicer.gate.clear()
    async with serving(servicer) as (_, _, stub):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Decode(Request(), timeout=0.2)

        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(servicer.cancelled.wait(), 5)


async def test_a_message_beyond_the_limit_is_refused_and_the_next_works() -> None:
    async with serving(Thrower(), max_message_mib=1) as (_, _, stub):
        large = Request()
        large.tokens.ids = bytes(2 * 1024 * 1024)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Decode(large)

        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await stub.Decode(Request()) == tokenizer_pb2.DecodeResponse()


async def test_a_port_in_use_is_named() -> None:
    async with serving(Thrower()) as (running, _, _):
        with pytest.raises(ServerError, match=str(running.port)):
            async with running_server(service_of(Thrower()), ServerSettings(port=running.port)):
                pytest.fail("two servers on one port")


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 70000},
        {"max_batch_size": 0},
        {"max_queued": 0},
        {"max_message_mib": 0},
        {"grace_s": float("nan")},
        {"grace_s": -1.0},
        {"compile_only": True},
    ],
)
def test_invalid_settings_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StageSettings(**wrong)
