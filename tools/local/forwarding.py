"""Port forwarding from 127.0.0.1 to the pods of a Service, as `kubectl port-forward`."""

import asyncio
import itertools
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

CHUNK = 2**16
HOST = "127.0.0.1"


def listen(ports: Iterable[int]) -> list[socket.socket]:
    """Returns a listening socket for each port.

    Raises:
        RuntimeError: a port is in use.
    """
    sockets: list[socket.socket] = []
    for port in ports:
        try:
            sockets.append(socket.create_server((HOST, port), backlog=128))
        except OSError as error:
            for each in sockets:
                each.close()
            raise RuntimeError(
                f"cannot listen on {HOST}:{port} ({error.strerror}): is another server there? "
                "Name another --base-port, or --gateway-port for HTTP"
            ) from error
    return sockets


class Forward:
    """Forwards each connection to one of the ready pods, in turns."""

    def __init__(self, listening: socket.socket, ready: Callable[[], Sequence[str]]) -> None:
        """Takes over a listening socket, which it closes; `ready` returns addresses of pods."""
        self._listening, self._ready = listening, ready
        self._turns = itertools.count()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begins to accept connections."""
        self._server = await asyncio.start_server(self._forward, sock=self._listening)

    def refuse(self) -> None:
        """Stops accepting; open connections stay open."""
        assert self._server is not None
        self._server.close()

    async def close(self) -> None:
        """Closes all connections."""
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        writers = [writer]
        try:
            addresses = self._ready()
            if addresses:
                host, _, port = addresses[next(self._turns) % len(addresses)].rpartition(":")
                there, to_pod = await asyncio.open_connection(host, int(port))
                writers.append(to_pod)
                await asyncio.gather(_pipe(reader, to_pod), _pipe(there, writer))
        except OSError:  # one end closed the connection: close the other
            pass
        finally:
            self._connections.discard(task)
            for each in writers:
                each.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK):
        writer.write(chunk)
        await writer.drain()
    with suppress(OSError):
        writer.write_eof()
