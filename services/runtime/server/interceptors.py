"""Server interceptors: spans, gRPC statuses of exceptions, and a count of open calls."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

import grpc
from opentelemetry import context as trace_context
from opentelemetry.trace import SpanKind

from services.runtime.checkpoints.errors import CheckpointMismatch, CheckpointNotFound
from services.runtime.observability import span_attributes
from services.runtime.observability.exporter_selection import selected_exporter
from services.runtime.observability.tracing import span
from services.runtime.server.endings import (
    deadline_of,
    status_of_aborted,
    status_of_cancelled,
)
from services.runtime.server.peer_identity import AcceptedClients
from services.runtime.server.requests import Context, Handler, RequestReader
from services.runtime.wire.errors import (
    DETAILS_KEY,
    RequestError,
    failed_precondition,
    resource_exhausted,
)

logger = logging.getLogger(__name__)
HEALTH = "/grpc.health."
HEALTH_CHECK = "/grpc.health.v1.Health/Check"  # answered however many other calls are open
RETRY_AFTER_S = 1.0  # to a caller that came when too many calls were open
Around = Callable[[str, Context], AbstractAsyncContextManager[None]]
Wrap = Callable[[Handler, str], Handler]


class HandlerInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of the methods that it wants, by full name."""

    def __init__(self, wrap: Wrap, *, wanted: Callable[[str], bool]) -> None:
        """Wraps nothing yet: gRPC calls `intercept_service` for every call."""
        self._wrap, self._wanted = wrap, wanted

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wraps the handler of a call."""
        handler, method = await continuation(handler_call_details), handler_call_details.method
        if handler is None or not self._wanted(method):
            return handler
        return self._wrap(handler, method)


def wrapped(handler: Handler, method: str, around: Around) -> Handler:
    """Returns a handler that runs inside a context manager.

    The given handler is one of a stream, a coroutine, as `RequestReader.reading` makes it.
    """
    inner: Any = handler.stream_stream

    async def stream(requests: Any, context: Context) -> None:
        async with around(method, context):
            await inner(requests, context)

    return grpc.stream_stream_rpc_method_handler(
        stream,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


@asynccontextmanager
async def error_statuses(method: str, context: Context) -> AsyncIterator[None]:
    """Turns an exception of a handler into the status of the call.

    A `RequestError` keeps its details. Any other exception is logged with its traceback, and the
    caller receives INTERNAL without them.
    """
    with _cancelled_if_gone():
        try:
            yield
        except (asyncio.CancelledError, grpc.aio.AbortError, grpc.aio.InternalError):
            raise
        except RequestError as error:
            await _abort(context, error)
        except CheckpointNotFound as error:
            await _abort(context, RequestError(grpc.StatusCode.NOT_FOUND, str(error)))
        except CheckpointMismatch as error:
            await _abort(context, failed_precondition(str(error)))
        except Exception:
            logger.exception("a call failed", extra={"method": method})
            message = "internal error; the server's log says more"
            await context.abort(grpc.StatusCode.INTERNAL, message)


@contextmanager
def _cancelled_if_gone() -> Iterator[None]:
    """Ends a call as cancelled if its caller has gone and gRPC has not cancelled it yet.

    Until it does, whatever is written to the caller raises an InternalError.
    """
    try:
        yield
    except grpc.aio.InternalError as error:
        raise asyncio.CancelledError from error


async def _abort(context: Context, error: RequestError) -> None:
    status = error.status()
    details = ((DETAILS_KEY, status.SerializeToString()),) if status.details else ()
    await context.abort(error.code, error.message, trailing_metadata=details)


@asynccontextmanager
async def server_spans(method: str, context: Context) -> AsyncIterator[None]:
    """Opens the server span of a call, as a child of the client's span."""
    # Imported here: at import it reads OTEL_PROPAGATORS, which a process checks when it starts.
    from opentelemetry.propagate import extract

    metadata: dict[str, Any] = dict(context.invocation_metadata() or ())
    token, code = trace_context.attach(extract(metadata)), grpc.StatusCode.UNKNOWN
    deadline_s = deadline_of(context)
    attributes = span_attributes.call(method)
    try:
        with span(method.lstrip("/"), kind=SpanKind.SERVER, **attributes) as opened:
            try:
                yield
                code = grpc.StatusCode.OK
            except grpc.aio.AbortError:
                code = status_of_aborted(context)
                raise
            except asyncio.CancelledError:
                code = status_of_cancelled(deadline_s)
                raise
            finally:
                opened.set_attributes(span_attributes.end_of_call(code))
    finally:
        trace_context.detach(token)


class CallCount:
    """The number of open calls, and how many there may be."""

    def __init__(self, limit: int = 256) -> None:
        """Starts at 0."""
        self.running, self._limit = 0, limit
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

    @asynccontextmanager
    async def limiting(self, method: str, context: Context) -> AsyncIterator[None]:
        """Refuses a call, which is counted already, if there are too many.

        Raises:
            RequestError: RESOURCE_EXHAUSTED.
        """
        if self.running > self._limit:
            raise resource_exhausted(
                f"{self._limit} other calls are open; try again", retry_after_s=RETRY_AFTER_S
            )
        yield

    async def idle(self) -> None:
        """Waits until no call is open."""
        await self._idle.wait()


class EndlessCalls:
    """Calls that may have no end of their own, such as a health watch.

    A server that stops ends them by this class. If it closed all connections as soon as the other
    calls have ended, it could cut off the last status of those calls, still on its way.
    """

    def __init__(self, limit: int = 256) -> None:
        """Starts with no calls, of which there may be `limit`."""
        self._limit = limit
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ended = False

    @asynccontextmanager
    async def ending(self, method: str, context: Context) -> AsyncIterator[None]:
        """Ends a call as UNAVAILABLE when `end` is called."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError(f"{method} does not run in a task")
        if len(self._tasks) >= self._limit:
            raise resource_exhausted(
                f"{self._limit} other calls are open; try again", retry_after_s=RETRY_AFTER_S
            )
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
    calls: CallCount,
    endless: EndlessCalls,
    requests: RequestReader,
    *measured: Wrap,
    clients: AcceptedClients | None = None,
    admit: Around | None = None,
) -> list[grpc.aio.ServerInterceptor]:
    """Returns the interceptors of a server, outermost first; spans only if tracing is on.

    `measured` wraps run inside the span and see the final status. Without `clients` a call of any
    client is answered. `admit` runs before a request is read, and sees exceptions before they
    become a status. Both run around every call but health checks.
    """

    def around(context_of: Around) -> Wrap:
        return lambda handler, method: wrapped(handler, method, context_of)

    def ours(wrap: Wrap) -> HandlerInterceptor:
        return HandlerInterceptor(wrap, wanted=is_ours)

    def every(wrap: Wrap) -> HandlerInterceptor:
        return HandlerInterceptor(wrap, wanted=lambda method: True)

    def may_be_endless(method: str) -> bool:
        return not is_ours(method) and method != HEALTH_CHECK

    accepted = [] if clients is None else [around(clients.accepting)]
    admitted = [] if admit is None else [around(admit)]
    traced = [] if selected_exporter("TRACES") == "none" else [around(server_spans)]
    return [
        *map(ours, [around(calls.counting), *traced, *measured]),
        every(around(error_statuses)),
        *(HandlerInterceptor(wrap, wanted=needs_admission) for wrap in (*accepted, *admitted)),
        ours(around(calls.limiting)),
        HandlerInterceptor(around(endless.ending), wanted=may_be_endless),
        every(requests.reading),
    ]


def needs_admission(method: str) -> bool:
    """Returns whether a server may refuse a method by its caller; health checks it may not."""
    return not method.startswith(HEALTH)


def is_ours(method: str) -> bool:
    """Returns whether a method is Muse's own, not one of health, reflection or channelz."""
    return method.startswith("/muse.")
