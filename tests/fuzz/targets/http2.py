"""Bytes of a connection to a server that listens: it goes on, and answers the next good call.

The first byte is even for a connection that begins as HTTP/2 does, and odd for one of any bytes.
"""

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import grpc
from muse.orchestrator.v1.orchestrator_pb2 import GetStatusRequest, GetStatusResponse

from tests import http2
from tests.tls_orchestrator import serving

MODULES = ("services.runtime.server",)
MAX_BYTES = 1024
PATH = b"/muse.orchestrator.v1.OrchestratorService/GetStatus"
ANSWER_S = 10.0  # for the next good call; a listener that ended is built again within a second
TRIES, PAUSE_S = 100, 0.05
# Of a call that came to a listener as it ended: it was not begun, and a client tries again.
TRY_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class Client:
    """Sends cases, and good calls, to a server."""

    def __init__(self, port: int, channel: grpc.aio.Channel) -> None:
        """Calls nothing yet."""
        self._port = port
        self._good = channel.unary_unary(
            PATH.decode(),
            request_serializer=GetStatusRequest.SerializeToString,
            response_deserializer=GetStatusResponse.FromString,
        )

    async def send(self, content: bytes) -> None:
        """Sends a case on a connection of its own, and then makes a good call."""
        reader, writer = await self._connected()
        try:
            begin = http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0)
            writer.write(content[1:] if content[:1] and content[0] % 2 else begin + content[1:])
            writer.write_eof()
            async with asyncio.timeout(ANSWER_S):
                while await reader.read(2**16):
                    pass
        except ConnectionError:
            pass  # the server may close a connection of nonsense before it has all of it
        finally:
            writer.close()
        await self._call()

    async def _call(self) -> None:
        """Makes a good call, and makes it again where a client would."""
        for _ in range(TRIES):
            try:
                await self._good(GetStatusRequest(), timeout=ANSWER_S, wait_for_ready=True)
                return
            except grpc.aio.AioRpcError as error:
                if error.code() not in TRY_AGAIN:
                    raise
                await asyncio.sleep(PAUSE_S)
        raise AssertionError(f"a good call failed {TRIES} times")

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for _ in range(TRIES):
            try:
                return await asyncio.open_connection("127.0.0.1", self._port)
            except ConnectionRefusedError:
                await asyncio.sleep(PAUSE_S)
        raise AssertionError(f"no port is open after {TRIES * PAUSE_S:g} s")


@contextmanager
def opened() -> Iterator[Callable[[bytes], None]]:
    """Yields the check of one case."""
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory() as folder:
        loop, stack = runner.get_loop(), AsyncExitStack()

        async def start() -> Client:
            address = await stack.enter_async_context(serving(Path(folder), None))
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            return Client(int(address.rpartition(":")[2]), channel)

        client = loop.run_until_complete(start())
        try:
            yield lambda content: loop.run_until_complete(client.send(content))
        finally:
            loop.run_until_complete(stack.aclose())


def seeds() -> Iterator[tuple[str, bytes]]:
    """Yields good calls, and frames that no client of gRPC sends."""
    call, good = http2.call(PATH), http2.message(b"")
    yield "good", b"\0" + call + good
    yield "two", b"\0" + call + good + http2.call(PATH, stream=3) + http2.message(b"", 3)
    yield "unknown_method", b"\0" + http2.call(b"/a/b") + good
    yield "no_text", b"\0" + http2.call(b"/\xff") + good
    yield "no_path", b"\0" + http2.call(b"") + good
    yield "timeout", b"\0" + http2.call(PATH, [(b"grpc-timeout", b"1n")]) + good
    yield "odd_timeout", b"\0" + http2.call(PATH, [(b"grpc-timeout", b"99999999H")]) + good
    yield "encoding", b"\0" + http2.call(PATH, [(b"grpc-encoding", b"gzip")]) + good
    yield "binary", b"\0" + http2.call(PATH, [(b"a-bin", b"AP8"), (b"b", b"\xff")]) + good
    yield "content_type", b"\0" + http2.call(PATH, content_type=b"text/plain") + good
    yield "compressed", b"\0" + call + http2.frame(http2.DATA, 1, 1, b"\1\0\0\0\1a")
    yield "long_message", b"\0" + call + http2.frame(http2.DATA, 0, 1, b"\0\xff\xff\xff\xffabc")
    yield "no_message", b"\0" + call + http2.frame(http2.DATA, http2.END_STREAM, 1)
    yield "half", b"\0" + call + good[:11]
    yield "reset", b"\0" + call + http2.frame(http2.RST_STREAM, 0, 1, bytes(4)) + good
    yield "ping", b"\0" + http2.frame(http2.PING, 0, 0, bytes(8)) * 3
    yield "goaway", b"\0" + http2.frame(http2.GOAWAY, 0, 0, bytes(8)) + call + good
    yield "window", b"\0" + http2.frame(http2.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") + call
    yield "settings", b"\0" + http2.frame(http2.SETTINGS, 0, 0, b"\0\4\0\0\0\0\0\5\0\xff\xff\xff")
    yield "continuation", b"\0" + http2.frame(http2.HEADERS, 0, 1, b"\x82") * 2
    yield "http1", b"\1GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    yield "tls", b"\1\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"
