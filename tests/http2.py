"""HTTP/2 by hand: what no gRPC client sends."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS = 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Returns a frame. Source: RFC 9113, section 4.1."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def header_block(path: bytes, others: Iterable[tuple[bytes, bytes]] = (), **known: bytes) -> bytes:
    """Returns the header block of a gRPC call; `known` replaces a header by its name.

    Source: RFC 7541, section 6.2.2, without indices or Huffman codes.
    """
    headers = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"localhost",
        b"te": b"trailers",
        b"content-type": known.get("content_type", b"application/grpc"),
    }
    pairs = [*headers.items(), *others]
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in pairs)


def _string(value: bytes) -> bytes:
    if len(value) < 127:
        return bytes([len(value)]) + value
    rest, length = len(value) - 127, bytes([127])
    while rest >= 128:
        length, rest = length + bytes([rest % 128 + 128]), rest // 128
    return length + bytes([rest]) + value


def call(
    path: bytes, others: Iterable[tuple[bytes, bytes]] = (), *, stream: int = 1, **known: bytes
) -> bytes:
    """Returns the frame that opens a call, of which no message follows."""
    return frame(HEADERS, END_HEADERS, stream, header_block(path, others, **known))


def message(content: bytes, stream: int = 1) -> bytes:
    """Returns the frame of a call's one message."""
    return frame(DATA, END_STREAM, stream, b"\0" + len(content).to_bytes(4) + content)


@asynccontextmanager
async def connected(
    port: int,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Opens a connection to 127.0.0.1, after its preface and settings."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(PREFACE + frame(SETTINGS, 0, 0))
        await writer.drain()
        yield reader, writer
    finally:
        writer.close()


async def goaway(reader: asyncio.StreamReader) -> None:
    """Reads until the server announces that it takes no further calls on a connection."""
    kind = None
    while kind != GOAWAY:
        head = await reader.readexactly(9)
        kind = head[3]
        await reader.readexactly(int.from_bytes(head[:3]))


async def sent(port: int, content: bytes) -> bytes:
    """Sends bytes on a connection of their own; returns what comes back within 0.2 s."""
    answer = b""
    async with connected(port) as (reader, writer):
        writer.write(content)
        try:
            async with asyncio.timeout(0.2):
                await writer.drain()
                while chunk := await reader.read(2**16):
                    answer += chunk
        except (TimeoutError, ConnectionError):
            pass
    return answer
