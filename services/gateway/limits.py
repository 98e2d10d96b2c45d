"""Limits around every request: how many at once, bytes of bodies, seconds until one has arrived.

They hold for what a request brings. What its answer may take, the orchestrator's deadline bounds.
"""

import asyncio

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.errors import FAILED, ApiError

PROBES = ("/healthz", "/readyz", "/metrics")


class Limits:
    """An ASGI application around another."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_requests: int,
        max_body_bytes: int,
        max_bodies_bytes: int,
        receive_timeout_s: float,
    ) -> None:
        """Limits an application; `GatewaySettings` documents the numbers."""
        self._app, self._max_requests, self._open = app, max_requests, 0
        self._max_bodies_bytes, self._held_bytes = max_bodies_bytes, 0
        self._max_body_bytes, self._receive_timeout_s = max_body_bytes, receive_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request, or refuses it."""
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        refusal = self._refusal_at_arrival(scope)
        if refusal is None:
            self._open += 1
            try:
                refusal = await self._served(scope, receive, send)
            finally:
                self._open -= 1
        if refusal is not None:
            answer = JSONResponse(refusal.body, refusal.status, dict(refusal.headers))
            await answer(scope, receive, send)

    def _refusal_at_arrival(self, scope: Scope) -> ApiError | None:
        if self._open >= self._max_requests:
            return _full(f"all {self._max_requests} requests that may be open at once are")
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_body_bytes:
            return self._too_large()
        return None

    async def _served(self, scope: Scope, receive: Receive, send: Send) -> ApiError | None:
        """Returns the refusal of a body that is too large or late; the application sends nothing.

        The rest of such a body is not read, so its connection is closed.
        """
        refusal: ApiError | None = None
        arrived, whole = 0, False
        deadline_s = asyncio.get_running_loop().time() + self._receive_timeout_s

        async def bounded_receive() -> Message:
            nonlocal refusal, arrived, whole
            if whole:  # what may follow is that the caller goes away
                return await receive()
            try:
                async with asyncio.timeout_at(deadline_s):
                    message = await receive()
            except TimeoutError:
                refusal = self._too_late()
                raise ClientDisconnect from None
            part_bytes = len(message.get("body", b""))
            arrived += part_bytes
            self._held_bytes += part_bytes
            if arrived > self._max_body_bytes:
                refusal = self._too_large()
                raise ClientDisconnect
            if self._held_bytes > self._max_bodies_bytes:
                most = f"{self._max_bodies_bytes / 2**20:g} MiB"
                refusal = _full(f"the bodies of open requests are larger than {most} together")
                raise ClientDisconnect
            whole = not message.get("more_body", False)
            return message

        async def send_unless_refused(message: Message) -> None:
            if refusal is None:
                await send(message)

        try:
            await self._app(scope, bounded_receive, send_unless_refused)
        finally:
            self._held_bytes -= arrived
        return refusal

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            f"expected a body of at most {self._max_body_bytes / 2**20:g} MiB, got more",
            code="request_too_large",
            headers={"Connection": "close"},
        )

    def _too_late(self) -> ApiError:
        return ApiError(
            408,
            f"expected the whole body within {self._receive_timeout_s:g} s",
            code="request_timeout",
            headers={"Connection": "close"},
        )


def _full(what: str) -> ApiError:
    """Returns the refusal of a request for which this gateway has no room now."""
    headers = {"Retry-After": "1", "Connection": "close"}  # the rest of its body is not read
    return ApiError(503, what, FAILED, "overloaded", headers=headers)
