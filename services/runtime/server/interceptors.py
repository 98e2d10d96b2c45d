"""Server interceptors: spans, gRPC statuses of exceptions, and a count of open calls."""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import grpc
from opentelemetry import context as trace_context
from opentelemetry.propagate import extract
from opentelemetry.trace import SpanKind

from services.runtime.checkpoints.errors import CheckpointMismatch, CheckpointNotFound
from services.runtime.observability import span_attributes
from services.runtime.observability.exporter_selection import selected_exporter
from services.runtime.observability.tracing import span
from services.runtime.wire.errors import (
    DETAILS_KEY,
    RequestError,
    failed_precondition,
)

logger = logging.getLogger(__name__)
Handler = grpc.RpcMethodHandler  # generic in its type stubs only
Context = grpc.aio.ServicerContext[Any, Any]
Around = Callable[[str, Context], AbstractAsyncContextManager[None]]
Wrap = Callable[[Handler, str], Handler]


class HandlerInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of the methods that it wants, by full name and handler."""

    def __init__(self, wrap: Wrap, *, wanted: Callable[[str, Handler], bool]) -> None:
        """Wraps nothing yet: gRPC calls `intercept_service` for every call."""
        self._wrap, self._wanted = wrap, wanted

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wraps the handler of a call."""
        handler, method = await continuation(handler_call_details), handler_call_details.method
        if handler is None or not self._wanted(method, handler):
            return handler
        return self._wrap(handler, method)


def wrapped(handler: Any, method: str, around: Around) -> Handler:
    """Returns a handler that runs inside a context manager."""
    if handler.request_streaming and not handler.response_streaming:
        raise TypeError(f"{method} has a stream of requests and one response: not supported")
    kinds = {
        "request_deserializer": handler.request_deserializer,
        "response_serializer": handler.response_serializer,
    }
    if not handler.response_streaming:

        async def respond(request: Any, context: Context) -> Any:
            async with around(method, context):
                return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(respond, **kinds)

    both = handler.request_streaming
    inner = handler.stream_stream if both else handler.unary_stream

    # A coroutine that writes, not a generator: it runs in the call's own task from start to end, so
    # that the context manager closes there when the caller cancels between two responses.
    async def stream(request: Any, context: Context) -> None:
        async with around(method, context):
            if not inspect.isasyncgenfunction(inner):
                await inner(request, context)
                return
            async with aclosing(inner(request, context)) as responses:
                async for response in responses:
                    await context.write(response)

    if both:
        return grpc.stream_stream_rpc_method_handler(stream, **kinds)
    return grpc.unary_stream_rpc_method_handler(stream, **kinds)


@asynccontextmanager
async def error_statuses(method: str, context: Context) -> AsyncIterator[None]:
    """Turns an exception of a handler into the status of the call.

    A `RequestError` keeps its details. Any other exception is logged with its traceback, and the
    caller receives INTERNAL without them.
    """
    try:
        yield
    except (asyncio.CancelledError, grpc.aio.AbortError):
        raise
    except RequestError as error:
        await _abort(context, error)
    except CheckpointNotFound as error:
        await _abort(context, RequestError(grpc.StatusCode.NOT_FOUND, str(error)))
    except CheckpointMismatch as error:
        await _abort(context, failed_precondition(str(error)))
    except Exception:
        logger.exception("a call failed", extra={"method": method})
        await context.abort(grpc.StatusCode.INTERNAL, "internal error; the server's log says more")


async def _abort(context: Context, error: RequestError) -> None:
    status = error.status()
    details = ((DETAILS_KEY, status.SerializeToString()),) if status.details else ()
    await context.abort(error.code, error.message, trailing_metadata=details)


@asynccontextmanager
async def server_spans(method: str, context: Context) -> AsyncIterator[None]:
    """Opens the server span of a call, as a child of the client's span."""
    metadata: dict[str, Any] = dict(context.invocation_metadata() or ())
    token, code = trace_context.attach(extract(metadata)), grpc.StatusCode.CANCELLED
    attributes = span_attributes.call(method)
    try:
        with span(method.lstrip("/"), kind=SpanKind.SERVER, **attributes) as opened:
            try:
                yield
                code = grpc.StatusCode.OK
            except grpc.aio.AbortError:
                code = context.code()
                raise
            finally:
                opened.set_attributes(span_attributes.end_of_call(code))
    finally:
        trace_context.detach(token)


class CallCount:
    """The number of open calls."""

    def __init__(self) -> None:
        """Starts at 0."""
        self.running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @asynccontextmanager
    async def counting(self, method: str, context: Context) -> AsyncIterator[None]:
        """Counts a call while it is open."""
        self.running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.running -= 1
            if not self.running:
                self._idle.set()

    async def idle(self) -> None:
        """Waits until no call is open."""
        await self._idle.wait()


class EndlessCalls:
    """Streams without an end of their own, such as a health watch.

    A server that stops ends them by this class. If it closed all connections as soon as the other
    calls have ended, it could cut off the last status of those calls, still on its way.
    """

    def __init__(self) -> None:
        """Starts with no calls."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ended = False

    @asynccontextmanager
    async def ending(self, method: str, context: Context) -> AsyncIterator[None]:
        """Ends a call as UNAVAILABLE when `end` is called."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError(f"{method} does not run in a task")
        self._tasks.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self._ended:
                raise
            task.uncancel()
            await context.abort(grpc.StatusCode.UNAVAILABLE, "this server stops")
        finally:
            self._tasks.discard(task)

    def end(self) -> None:
        """Ends all open calls."""
        self._ended = True
        for task in self._tasks:
            task.cancel()


def server_interceptors(
    calls: CallCount, endless: EndlessCalls, *measured: Wrap
) -> list[grpc.aio.ServerInterceptor]:
    """Returns the interceptors of a server, outermost first; spans only if tracing is on.

    `measured` wraps run inside the span and see the final status.
    """

    def around(context_of: Around) -> Wrap:
        return lambda handler, method: wrapped(handler, method, context_of)

    def ours(wrap: Wrap) -> HandlerInterceptor:
        return HandlerInterceptor(wrap, wanted=lambda method, handler: is_ours(method))

    traced = [] if selected_exporter("TRACES") == "none" else [around(server_spans)]
    return [
        *map(ours, [around(calls.counting), *traced, *measured, around(error_statuses)]),
        HandlerInterceptor(
            around(endless.ending),
            wanted=lambda method, handler: handler.response_streaming and not is_ours(method),
        ),
    ]


def is_ours(method: str) -> bool:
    """Returns whether a method is Muse's own, not one of health, reflection or channelz."""
    return method.startswith("/muse.")
