"""Metrics of every call: duration, gRPC status, and bytes of the messages."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from services.runtime.observability.instruments import IO, REQUESTS
from services.runtime.observability.tracing import recorded_span
from services.runtime.server.endings import (
    deadline_of,
    status_of_aborted,
    status_of_cancelled,
)
from services.runtime.server.interceptors import wrapped
from services.runtime.server.requests import Context, Handler


def kind_of(method: str, request: Any) -> str:
    """Returns the kind of a request: the name of its edit, or of its method in snake case."""
    fields = request.DESCRIPTOR.fields_by_name
    if "mask_free_edit" in fields and request.HasField("mask_free_edit"):
        return "mask_free_edit"
    if "edit" in request.DESCRIPTOR.oneofs_by_name and (edit := request.WhichOneof("edit")):
        return str(edit)
    return kind_of_method(method)


def kind_of_method(method: str) -> str:
    """Returns the name of a method in snake case."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", method.rpartition("/")[2]).lower()


def measured(handler: Any, method: str) -> Handler:
    """Returns a handler that measures its call; one is made for each call."""
    kind, start_s = kind_of_method(method), time.perf_counter()
    deserialize, serialize = handler.request_deserializer, handler.response_serializer

    def counting_deserializer(message: bytes) -> Any:
        nonlocal kind
        IO.add(len(message), direction="receive")
        request = deserialize(message)
        kind = kind_of(method, request)
        return request

    def counting_serializer(response: Any) -> bytes:
        message: bytes = serialize(response)
        IO.add(len(message), direction="transmit")
        return message

    @asynccontextmanager
    async def timing(_: str, context: Context) -> AsyncIterator[None]:
        outcome, trace = grpc.StatusCode.UNKNOWN, recorded_span()
        deadline_s = deadline_of(context)
        try:
            yield
            outcome = grpc.StatusCode.OK
        except grpc.aio.AbortError:
            outcome = status_of_aborted(context)
            raise
        except asyncio.CancelledError:
            outcome = status_of_cancelled(deadline_s)
            raise
        finally:
            seconds = time.perf_counter() - start_s
            REQUESTS.record(seconds, trace=trace, kind=kind, outcome=outcome.name)

    counting = handler._replace(
        request_deserializer=counting_deserializer, response_serializer=counting_serializer
    )
    return wrapped(counting, method, timing)
