"""Calls of a servicer through every interceptor of a server, without a connection."""

import asyncio
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc

from services.runtime.server.interceptors import (
    Around,
    CallCount,
    EndlessCalls,
    server_interceptors,
)
from services.runtime.server.metrics_interceptor import measured
from services.runtime.server.requests import Handler, RequestReader
from services.runtime.wire.errors import MAX_MESSAGE_LENGTH
from tests.fuzz.cases import ENOUGH_S, NO_TIME_S, Case
from tests.fuzz.sentences import check_sentence

LONGEST_S = 60.0  # for a call, whatever its deadline
# What a caller's input may lead to, by the comments of the protos and docs/limits.md.
DOCUMENTED = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


@dataclass
class Ending:
    """How a call ended.

    Attributes:
        code: Its status.
        message: The status's message.
        responses: Serialized messages, as they came.
        trace: Of the exception that made it INTERNAL; empty otherwise.
    """

    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""
    responses: list[bytes] = field(default_factory=list)
    trace: str = ""


class _Context:
    """What a handler sees of its call, as grpcio's own context shows it."""

    def __init__(self, case: Case, handler: Any) -> None:
        self.ending = Ending()
        self._case, self._handler = case, handler
        self._code: grpc.StatusCode | int = 0

    async def read(self) -> Any:
        return self._handler.request_deserializer(self._case.request)

    async def write(self, response: Any) -> None:
        self.ending.responses.append(self._handler.response_serializer(response))

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()
    ) -> None:
        self.ending.code, self.ending.message, self._code = code, details, code
        if code is grpc.StatusCode.INTERNAL:
            self.ending.trace = traceback.format_exc()
        raise grpc.aio.AbortError

    def code(self) -> grpc.StatusCode | int:
        return self._code

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:50000"

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def time_remaining(self) -> float:
        return self._case.left_s


class InProcess:
    """The methods of a servicer, called with bytes."""

    def __init__(self, register: Callable[[Any], None], admit: Around | None = None) -> None:
        """Takes what `register` adds to a server; `admit` is as of a server."""
        self._handlers: dict[str, Handler] = {}
        self._interceptors = server_interceptors(
            CallCount(), EndlessCalls(), RequestReader(), measured, admit=admit
        )
        register(self)

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Takes none: those of a service are registered as well."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Handler]) -> None:
        """Takes the handlers of a service."""
        self._handlers |= {f"/{service}/{name}": each for name, each in handlers.items()}

    @property
    def methods(self) -> list[str]:
        """Full names of all methods, sorted."""
        return sorted(self._handlers)

    async def call(self, case: Case) -> Ending:
        """Makes a call.

        Raises:
            TimeoutError: the call does not end.
        """
        handler: Any = await self._intercepted(0, case.method)
        context = _Context(case, handler)
        async with asyncio.timeout(LONGEST_S):
            with suppress(grpc.aio.AbortError):
                await handler.stream_stream(None, context)
        return context.ending

    async def _intercepted(self, index: int, method: str) -> Handler:
        if index == len(self._interceptors):
            return self._handlers[method]

        async def continuation(_: Any) -> Handler:
            return await self._intercepted(index + 1, method)

        details: Any = _Details(method)
        return await self._interceptors[index].intercept_service(continuation, details)


@dataclass(frozen=True)
class _Details:
    method: str
    invocation_metadata: tuple[tuple[str, str], ...] = ()


def check_ending(ending: Ending, left_s: float = ENOUGH_S) -> None:
    """Checks that a call with so much time ended as the documents say that calls end.

    Raises:
        AssertionError: the status is another one, or its message is no sentence for a person.
    """
    late = left_s == NO_TIME_S and ending.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert late or ending.code in DOCUMENTED, f"{ending.code}: {ending.message}\n{ending.trace}"
    if ending.code is not grpc.StatusCode.OK:
        check_sentence(ending.message, longest=MAX_MESSAGE_LENGTH + len("..."))
