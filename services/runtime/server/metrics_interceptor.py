"""What every call of a server adds to its metrics: its duration, its end, and its bytes."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from services.runtime.observability.instruments import EDITS, IO, REQUESTS
from services.runtime.observability.tracing import recorded_span
from services.runtime.server.interceptors import Context, Handler, is_ours, wrapped


def kind_of(method: str, request: Any) -> str:
    """Returns what a call asks for, one of `instruments.KINDS`.

    Args:
        method: Full name, such as "/muse.base.v1.BaseService/Generate".
        request: Its message.
    """
    fields = request.DESCRIPTOR.fields_by_name
    if "resample" in fields and request.HasField("resample"):
        return "resample"
    for edit in EDITS:
        if edit in fields and request.HasField(edit):
            return edit
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", method.rpartition("/")[2]).lower()


class MeasuringCalls(grpc.aio.ServerInterceptor):
    """Measures the calls of our own services; health and the like are left out."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wraps the handler of a call."""
        handler, method = await continuation(handler_call_details), handler_call_details.method
        if handler is None or not is_ours(method):
            return handler
        return _Call(method).measured(handler)


class _Call:
    """One call under way."""

    def __init__(self, method: str) -> None:
        self._method, self._kind, self._start_s = method, "", time.perf_counter()

    def measured(self, handler: Any) -> Handler:
        read, write = handler.request_deserializer, handler.response_serializer

        def reading(message: bytes) -> Any:
            IO.add(len(message), direction="receive")
            request = read(message)
            self._kind = kind_of(self._method, request)
            return request

        def writing(response: Any) -> bytes:
            message: bytes = write(response)
            IO.add(len(message), direction="transmit")
            return message

        counted = handler._replace(request_deserializer=reading, response_serializer=writing)
        return wrapped(counted, self._method, self._timing)

    @asynccontextmanager
    async def _timing(self, method: str, context: Context) -> AsyncIterator[None]:
        outcome, trace = grpc.StatusCode.UNKNOWN, recorded_span()
        try:
            yield
            outcome = grpc.StatusCode.OK
        except grpc.aio.AbortError:
            outcome = _status(context)
            raise
        except asyncio.CancelledError:
            left_s = context.time_remaining()
            late = left_s is not None and left_s <= 0
            outcome = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            raise
        finally:
            seconds = time.perf_counter() - self._start_s
            REQUESTS.record(seconds, trace=trace, kind=self._kind, outcome=outcome.name)


def _status(context: Context) -> grpc.StatusCode:
    """Returns what a call was aborted with; gRPC gives it as a number."""
    code: Any = context.code()
    return next(each for each in grpc.StatusCode if code in (each, each.value[0]))
