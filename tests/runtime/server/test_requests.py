"""Requests that do not come, do not end, do not parse, or are too many: each ends by a status."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
from google.rpc.status_pb2 import Status
from muse.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc

from services.runtime.observability.instruments import REQUESTS
from services.runtime.server import requests as requests_module
from services.runtime.server.interceptors import error_statuses
from services.runtime.server.process import RunningServer, Service, running_server
from services.runtime.server.settings import ServerSettings
from services.runtime.wire.errors import invalid_field
from tests import http2
from tests.waiting import until

DECODE = b"/muse.tokenizer.v1.TokenizerService/Decode"
STATUS = b"/muse.tokenizer.v1.TokenizerService/GetStatus"
HEALTH = b"/grpc.health.v1.Health/Check"
WATCH = b"/grpc.health.v1.Health/Watch"
Request = tokenizer_pb2.DecodeRequest


class Tokenizer(tokenizer_pb2_grpc.TokenizerServiceServicer):
    """Decodes at once; GetStatus waits for its gate."""

    def __init__(self) -> None:
        self.gate, self.open = asyncio.Event(), 0

    async def Decode(self, request: Request, context: Any) -> tokenizer_pb2.DecodeResponse:
        return tokenizer_pb2.DecodeResponse()

    async def GetStatus(self, request: Any, context: Any) -> tokenizer_pb2.GetStatusResponse:
        self.open += 1
        try:
            await self.gate.wait()
        finally:
            self.open -= 1
        return tokenizer_pb2.GetStatusResponse()


async def nothing() -> None:
    """Warms up and closes nothing."""


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[RunningServer, Tokenizer, Any]]:
    servicer = Tokenizer()
    service = Service(name="tokenizer", servicer=servicer, warm_up=nothing, close=nothing)
    async with (
        running_server(service, ServerSettings(grace_s=1, **settings)) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        yield running, servicer, tokenizer_pb2_grpc.TokenizerServiceStub(channel)


async def status_of(reader: asyncio.StreamReader) -> bytes:
    """Reads until the last headers of a call; returns them."""
    while True:
        head = await reader.readexactly(9)
        content = await reader.readexactly(int.from_bytes(head[:3]))
        if head[3] == http2.HEADERS and head[4] & http2.END_STREAM:
            return content


async def refused(stub: Any, method: str = "Decode") -> grpc.aio.AioRpcError:
    """The error of a call that ends within a moment."""
    request = Request() if method == "Decode" else tokenizer_pb2.GetStatusRequest()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(stub, method)(request, timeout=10)
    return caught.value


@pytest.mark.parametrize("method", [DECODE, HEALTH, WATCH])
async def test_a_call_without_a_message_ends_in_time(
    method: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests_module, "AT_ONCE_S", 0.05)
    async with (
        serving(receive_timeout_s=1) as (running, _, stub),
        http2.connected(running.port) as (reader, writer),
    ):
        writer.write(http2.call(method))
        trailers = await asyncio.wait_for(status_of(reader), 5)
        assert b"grpc-status\x014" in trailers  # DEADLINE_EXCEEDED
        assert b"did not arrive within 1 s" in trailers
        assert await stub.Decode(Request()) == tokenizer_pb2.DecodeResponse()


async def test_a_call_that_ends_without_a_message_is_refused() -> None:
    async with (
        serving() as (running, _, _),
        http2.connected(running.port) as (reader, writer),
    ):
        writer.write(http2.call(DECODE) + http2.frame(http2.DATA, http2.END_STREAM, 1))
        assert b"got none" in await asyncio.wait_for(status_of(reader), 5)


async def test_a_caller_that_leaves_before_its_message_has_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted: list[str] = []
    monkeypatch.setattr(REQUESTS, "record", lambda _, *, outcome, **__: counted.append(outcome))
    async with serving() as (running, _, _):
        for leave in (http2.frame(http2.RST_STREAM, 0, 1, b"\0\0\0\x08"), b""):
            async with http2.connected(running.port) as (_, writer):
                writer.write(http2.call(DECODE) + leave)
                await writer.drain()
                await asyncio.sleep(0.2)
            # What an earlier test left may be counted, too, when it is collected.
            await until(lambda: "CANCELLED" in counted)
            counted.clear()


class GoneCaller:
    """The context of a call whose caller has gone, of which the handler does not know yet."""

    async def abort(self, *_: Any, **__: Any) -> None:
        raise grpc.aio.InternalError("Failed execute_batch")


@pytest.mark.parametrize(
    "error",
    [grpc.aio.InternalError("Failed execute_batch"), invalid_field("a", expected="b", got=1)],
)
async def test_what_cannot_be_written_since_the_caller_has_gone_is_no_fault_of_the_server(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    context: Any = GoneCaller()
    with pytest.raises(asyncio.CancelledError):
        async with error_statuses(DECODE.decode(), context):
            raise error

    assert caplog.records == []


async def test_uploads_that_never_end_are_few_and_hold_up_no_small_request() -> None:
    begun = http2.frame(http2.DATA, 0, 1, b"\0\0\x10\0\0")  # of 1 MiB, of which nothing follows
    async with (
        serving(max_message_mib=1, max_arriving_mib=3, receive_timeout_s=2) as (
            running,
            _,
            stub,
        ),
        asyncio.TaskGroup() as group,
    ):

        async def upload() -> bytes:
            async with http2.connected(running.port) as (reader, writer):
                writer.write(http2.call(DECODE) + begun)
                return await asyncio.wait_for(status_of(reader), 10)

        uploads = [group.create_task(upload()) for _ in range(8)]
        for _ in range(10):
            assert await stub.Decode(Request(), timeout=5) == tokenizer_pb2.DecodeResponse()
            await asyncio.sleep(0.02)
    trailers = [each.result() for each in uploads]
    assert sum(b"grpc-status\x018" in each for each in trailers) == 5  # RESOURCE_EXHAUSTED
    assert sum(b"grpc-status\x014" in each for each in trailers) == 3  # DEADLINE_EXCEEDED


async def test_bytes_that_do_not_parse_are_an_invalid_argument_and_are_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[tuple[str, str]] = []
    monkeypatch.setattr(
        REQUESTS, "record", lambda _, *, kind, outcome, **__: counted.append((kind, outcome))
    )
    async with serving() as (running, _, _):
        with caplog.at_level(logging.INFO):
            async with grpc.aio.insecure_channel(running.address) as channel:
                for method, kind in ((DECODE, "decode"), (STATUS, "get_status")):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await channel.unary_unary(method.decode())(b"\xff\xfe")
                    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                    details = caught.value.details() or ""
                    assert details.startswith(f"expected a request of {method.decode()}, got bytes")
                    assert "Error" not in details
                    await until(lambda: counted)
                    assert counted.pop() == (kind, "INVALID_ARGUMENT")
    assert "Traceback" not in caplog.text


async def test_a_call_more_than_allowed_is_refused_and_health_is_still_answered() -> None:
    async with serving(max_calls=3) as (running, servicer, stub):
        calls = [
            asyncio.ensure_future(stub.GetStatus(tokenizer_pb2.GetStatusRequest()))
            for _ in range(3)
        ]
        await until(lambda: servicer.open == 3)
        error = await refused(stub)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.details() == "3 other calls are open; try again"
        details = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
        assert Status.FromString(details).details[0].type_url.endswith("RetryInfo")
        answer = await http2.sent(running.port, http2.call(HEALTH) + http2.message(b""))
        assert b"grpc-status\x010" in answer

        servicer.gate.set()
        await asyncio.gather(*calls)
        assert await stub.Decode(Request()) == tokenizer_pb2.DecodeResponse()


async def test_endless_calls_more_than_allowed_are_refused() -> None:
    async with (
        serving(max_calls=2) as (running, _, stub),
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        watches = [channel.unary_stream(WATCH.decode())(b"") for _ in range(2)]
        for each in watches:
            await each.read()
        with pytest.raises(grpc.aio.AioRpcError, match="2 other calls are open"):
            await channel.unary_stream(WATCH.decode())(b"").read()
        assert await channel.unary_unary(HEALTH.decode())(b"")
        assert await stub.Decode(Request()) == tokenizer_pb2.DecodeResponse()


async def test_metadata_is_taken_up_to_its_limit_and_refused_beyond_every_time() -> None:
    async with serving(max_metadata_kib=20) as (_, _, stub):
        for _ in range(10):
            fits = stub.Decode(Request(), metadata=(("note", "n" * 18 * 1024),))
            assert await fits == tokenizer_pb2.DecodeResponse()
        for _ in range(10):
            with pytest.raises(grpc.aio.AioRpcError, match="metadata") as caught:
                await stub.Decode(Request(), metadata=(("note", "n" * 20 * 1024),))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await stub.Decode(Request()) == tokenizer_pb2.DecodeResponse()


async def test_a_connection_has_no_more_open_calls_than_allowed() -> None:
    async with serving(max_streams=2) as (_, servicer, stub):
        calls = [
            asyncio.ensure_future(stub.GetStatus(tokenizer_pb2.GetStatusRequest()))
            for _ in range(5)
        ]
        await until(lambda: servicer.open == 2)
        await asyncio.sleep(0.2)
        assert servicer.open == 2
        servicer.gate.set()
        # One that comes while another is about to end may be refused.
        answers = await asyncio.gather(*calls, return_exceptions=True)
        refusals = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
        assert all(each.code() is grpc.StatusCode.UNAVAILABLE for each in refusals)
        assert len(answers) - len(refusals) >= 2


async def test_a_connection_more_than_allowed_is_closed() -> None:
    async with serving(max_connections=3) as (running, _, stub):
        assert await stub.Decode(Request()) == tokenizer_pb2.DecodeResponse()
        async with http2.connected(running.port), http2.connected(running.port):
            await asyncio.sleep(0.1)
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            with suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(1), 5) == b""
            writer.close()
            assert await stub.Decode(Request()) == tokenizer_pb2.DecodeResponse()


async def test_a_connection_without_calls_is_closed_and_its_client_opens_another() -> None:
    async with serving(max_connection_idle_s=0.3) as (running, _, stub):
        assert await stub.Decode(Request()) == tokenizer_pb2.DecodeResponse()
        async with http2.connected(running.port) as (reader, _):
            await asyncio.wait_for(http2.goaway(reader), 5)
        assert await stub.Decode(Request()) == tokenizer_pb2.DecodeResponse()


async def test_an_old_connection_is_closed_with_the_calls_whose_answers_are_not_read() -> None:
    closed = asyncio.Event()

    class Large(Tokenizer):
        async def Decode(self, request: Request, context: Any) -> tokenizer_pb2.DecodeResponse:
            context.add_done_callback(lambda _: closed.set())
            response = tokenizer_pb2.DecodeResponse()
            response.pixels.data = bytes(2**24)
            return response

    service = Service(name="tokenizer", servicer=Large(), warm_up=nothing, close=nothing)
    settings = ServerSettings(grace_s=1, max_connection_age_s=0.5, connection_grace_s=0.5)
    async with (
        running_server(service, settings) as running,
        http2.connected(running.port) as (reader, writer),
    ):
        writer.write(http2.call(DECODE) + http2.message(b""))
        await asyncio.wait_for(http2.goaway(reader), 5)
        await asyncio.wait_for(closed.wait(), 10)
