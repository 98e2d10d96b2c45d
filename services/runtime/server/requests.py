"""The one request of a call: it arrives within a time, and its bytes parse.

grpcio itself waits for a request for ever, outside any handler, and answers bytes that do not parse
with UNKNOWN and the name of a Python class. So every handler becomes one of a stream of requests,
which begins with the call and reads its request itself; on the wire the two are the same.
"""

import asyncio
import inspect
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from services.runtime.wire.errors import RequestError, resource_exhausted

Handler = grpc.RpcMethodHandler  # generic in its type stubs only
Context = grpc.aio.ServicerContext[Any, Any]
AT_ONCE_S = 0.5  # requests that take no longer are small, or come from near, and are not counted
RETRY_AFTER_S = 5.0  # about what a large picture takes to arrive


class RequestReader:
    """Reads the requests of a server's calls."""

    def __init__(self, *, timeout_s: float = 120.0, max_arriving: int = 16) -> None:
        """Reads none yet.

        Args:
            timeout_s: Time that a request may take to arrive.
            max_arriving: Requests that may take long at once: each holds up to a message's bytes.
        """
        self._timeout_s, self._max_arriving = timeout_s, max_arriving
        self._arriving = 0

    def reading(self, handler: Handler, method: str) -> Handler:
        """Returns a handler of a stream, a coroutine, that reads its request and runs another."""
        if handler.request_streaming and not handler.response_streaming:
            raise TypeError(f"{method} has a stream of requests and one response: not supported")
        inner: Any = handler.unary_unary or handler.unary_stream or handler.stream_stream

        # A coroutine that writes, not a generator: it runs in the call's own task from start to
        # end, so that contexts around it close there when the caller cancels between responses.
        async def stream(requests: Any, context: Context) -> None:
            request = requests if handler.request_streaming else await self._read(method, context)
            if inspect.isasyncgenfunction(inner):
                async with aclosing(inner(request, context)) as responses:
                    async for response in responses:
                        await context.write(response)
            elif handler.response_streaming:
                await inner(request, context)
            else:
                await context.write(await inner(request, context))

        return grpc.stream_stream_rpc_method_handler(
            stream,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    async def _read(self, method: str, context: Context) -> Any:
        """Reads the request of a call.

        Raises:
            RequestError: DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED or INVALID_ARGUMENT.
        """
        reading = asyncio.ensure_future(context.read())
        try:
            await asyncio.wait([reading], timeout=AT_ONCE_S)
            if not reading.done():
                await self._wait_for(reading)
            request = reading.result()
        except DecodeError as error:
            raise RequestError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"expected a request of {method}, got bytes that do not parse: generate the client "
                "from the protos of this server",
            ) from error
        finally:
            reading.cancel()
        if request is grpc.aio.EOF:
            raise RequestError(
                grpc.StatusCode.INVALID_ARGUMENT, f"expected a request of {method}, got none"
            )
        return request

    async def _wait_for(self, reading: "asyncio.Future[Any]") -> None:
        """Waits for a request that takes long."""
        if self._arriving >= self._max_arriving:
            raise resource_exhausted(
                f"{self._arriving} other requests are arriving slowly; try again",
                retry_after_s=RETRY_AFTER_S,
            )
        self._arriving += 1
        try:
            await asyncio.wait([reading], timeout=self._timeout_s)
        finally:
            self._arriving -= 1
        if not reading.done():
            raise RequestError(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"the request did not arrive within {self._timeout_s:g} s",
            )
