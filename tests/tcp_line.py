"""A TCP connection to a server that tests can cut, hold and slow down."""

import asyncio


class Line:
    """A TCP line to a server that can be cut, as when its process dies, and restored.

    Attributes:
        port: Port of 127.0.0.1 that it listens on; 0 before the first `restore`.
        silent: Nothing gets through and nothing is closed, as when its machine vanished.
        delay_s: Seconds that each piece of at most 64 KiB waits before it goes on.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        """Starts cut; the line leads to a port of `host`."""
        self._host, self._target, self.port = host, port, 0
        self.silent, self.delay_s = False, 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._listener: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def restore(self) -> None:
        """Accepts connections."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Resets all connections, and refuses further ones."""
        if self._listener is not None:
            self._listener.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    def hold(self) -> None:
        """Keeps what comes from now on, as a network whose packets are lost and sent again."""
        self._flowing.clear()

    def release(self) -> None:
        """Lets what was held go on, in its order."""
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = {writer}
        self._writers |= ends
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._target)
            ends.add(far_writer)
            self._writers |= ends
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except OSError:  # no server listens there, or one end closed the connection
            pass
        finally:
            self._writers -= ends
            for each in ends:
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if self.silent:
                    continue
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        finally:
            writer.transport.abort()
