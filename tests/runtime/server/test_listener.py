"""What no gRPC client sends: a server answers the next call, whatever came before."""

import asyncio
import random
import socket
import sys
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from muse.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc

from services.runtime.server.process import LIVENESS, Service, running_server
from services.runtime.server.settings import ServerSettings
from services.stages import ORCHESTRATOR, STAGES, generated, service_of
from tests import http2

NO_TEXT = b"/\xff\xfe"  # a path that is no UTF-8
DECODE = b"/muse.tokenizer.v1.TokenizerService/Decode"


async def nothing() -> None:
    """Warms up and closes nothing."""


def service(name: str, servicer: object | None = None) -> Service:
    if servicer is None:
        servicer = generated(name, f"{service_of(name)}Servicer")()
    return Service(name=name, servicer=servicer, warm_up=nothing, close=nothing)


async def lives(port: int) -> bool:
    """Asks on a new connection, since a client in use would wait before it connects again."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = health_pb2.HealthCheckRequest(service=LIVENESS)
        answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def until_it_lives(port: int) -> None:
    begun = time.monotonic()
    while True:
        try:
            assert await lives(port)
            return
        except grpc.aio.AioRpcError:
            assert time.monotonic() - begun < 5
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("name", [*STAGES, ORCHESTRATOR])
async def test_every_server_listens_again_after_a_path_that_is_no_text(name: str) -> None:
    async with running_server(service(name), ServerSettings(grace_s=1)) as running:
        for _ in range(2):
            async with http2.connected(running.port) as (reader, writer):  # it stays open
                writer.write(http2.call(NO_TEXT))
                await http2.goaway(reader)

                await until_it_lives(running.port)


async def test_nothing_is_written_into_memory_that_an_ended_accept_loop_has_freed() -> None:
    size_classes, each = range(64, 448, 16), 20  # what is freed is in one of these; in which varies
    fresh: list[bytes] = []
    async with (
        running_server(service("tokenizer"), ServerSettings(grace_s=1)) as running,
        http2.connected(running.port) as (reader, writer),
    ):
        writer.write(http2.call(NO_TEXT))
        shut_down = asyncio.create_task(http2.goaway(reader))
        while not shut_down.done():
            await asyncio.sleep(0)
            fresh += [b"\xff" * size for size in size_classes for _ in range(each)]

    assert len(fresh) >= each
    assert [held for held in fresh if held.strip(b"\xff")] == []


class Patient(tokenizer_pb2_grpc.TokenizerServiceServicer):
    """Answers once its gate is open."""

    def __init__(self) -> None:
        self.entered, self.gate = asyncio.Event(), asyncio.Event()

    async def Decode(self, request: object, context: object) -> tokenizer_pb2.DecodeResponse:
        self.entered.set()
        await self.gate.wait()
        return tokenizer_pb2.DecodeResponse()


async def test_a_call_under_way_is_answered_though_the_accept_loop_has_ended() -> None:
    servicer = Patient()
    async with (
        running_server(service("tokenizer", servicer), ServerSettings()) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        stub = tokenizer_pb2_grpc.TokenizerServiceStub(channel)
        call = asyncio.ensure_future(stub.Decode(tokenizer_pb2.DecodeRequest()))
        await servicer.entered.wait()
        await http2.sent(running.port, http2.call(NO_TEXT))
        await until_it_lives(running.port)
        servicer.gate.set()

        assert await call == tokenizer_pb2.DecodeResponse()
        assert await stub.Decode(tokenizer_pb2.DecodeRequest()) == tokenizer_pb2.DecodeResponse()


async def test_no_other_bytes_end_a_server() -> None:
    drawn = random.Random(0)
    wrong = b"\xff\xfe\0\r\n"
    packets = [
        http2.call(b""),
        http2.call(b"no slash"),
        http2.call(b"/" + b"x" * 9000),
        http2.call(DECODE, [(b"x-\xff", b"1")]),
        http2.call(DECODE, [(b"x", wrong)]),
        http2.call(DECODE, [(b"x-bin", b"!")]),
        http2.call(DECODE, [(b"traceparent", wrong)]),
        http2.call(DECODE, [(b"grpc-timeout", b"99999999999999H")]),
        http2.call(DECODE, [(b"grpc-timeout", wrong)]),
        http2.call(DECODE, [(b"grpc-encoding", wrong)]),
        http2.call(DECODE, [(b"grpc-accept-encoding", wrong)]),
        http2.call(DECODE, [(b":path", DECODE)]),
        http2.call(DECODE) + http2.message(wrong),
        http2.call(DECODE) + http2.frame(http2.DATA, 1, 1, b"\1\0\0\0\1x"),
        http2.call(DECODE) + http2.frame(http2.DATA, 1, 1, b"\0\xff\xff\xff\xff"),
        http2.frame(http2.HEADERS, http2.END_HEADERS, 1, wrong),
        http2.frame(http2.SETTINGS, 0, 0, b"\0\4\xff\xff\xff\xff"),
        http2.frame(http2.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"),
        http2.frame(http2.PING, 0, 0, b"short"),
        *(http2.frame(kind, 0xFF, 1, drawn.randbytes(40)) for kind in range(12)),
        drawn.randbytes(500),
    ]
    servicer = Patient()
    servicer.gate.set()
    async with running_server(service("tokenizer", servicer), ServerSettings(grace_s=1)) as running:
        for packet in packets:
            await http2.sent(running.port, packet)
            assert await lives(running.port), packet


async def test_bytes_of_a_caller_are_in_no_log() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.orchestrator", "--port", str(port)),
        stderr=asyncio.subprocess.PIPE,
    )
    while not await listens(port):  # noqa: ASYNC110, another process sets no event
        await asyncio.sleep(0.05)
    forged = b"\0\0\0\0\0\0\0\7" + b'why?\n{"level": "forged"}\n'
    await http2.sent(port, http2.frame(http2.GOAWAY, 0, 0, forged))
    await http2.sent(port, http2.call(DECODE, [(b"te", b"forged")]))
    process.terminate()
    _, log = await process.communicate()
    assert b'"message": "stopped"' in log
    assert b"forged" not in log
    assert all(line.startswith(b"{") for line in log.splitlines())


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True
