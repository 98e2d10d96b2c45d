"""The asynchronous client."""

import copy
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import TYPE_CHECKING, Self, Unpack, cast

import grpc
from muse.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc

from muse_client.addresses import target_of
from muse_client.calls import (
    DEFAULT_ADDRESS,
    DEFAULT_PORT,
    DEFAULT_TIMEOUT_S,
    STATUS_TIMEOUT_S,
    GenerateOptions,
    generate_request,
    trace_metadata,
)
from muse_client.channels import asynchronous_channels
from muse_client.credentials import credential_metadata
from muse_client.edits import EditMethods
from muse_client.errors import muse_error
from muse_client.events import Event, GeneratedImage, in_order, is_image, read_event
from muse_client.tls import Tls

if TYPE_CHECKING:  # a type of the stubs only
    from muse.orchestrator.v1.orchestrator_pb2_grpc import OrchestratorServiceAsyncStub


class AsyncMuseClient(EditMethods[Awaitable[list[GeneratedImage]]]):
    """Asynchronous client of an orchestrator; an asynchronous context manager."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        tls: Tls | None = None,
        api_key: str | None = None,
    ) -> None:
        """Creates a client, which connects at its first call; see `MuseClient`."""
        self._address, self._timeout_s, self._tls = target_of(address, DEFAULT_PORT), timeout_s, tls
        self._credential = credential_metadata(api_key)
        self._channels = asynchronous_channels(self._address, tls)

    async def __aenter__(self) -> "AsyncMuseClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def presenting(self, api_key: str) -> Self:
        """Returns a client that shares this one's connection and presents another credential.

        Only the client that was created is closed.

        Args:
            api_key: API key or token of the calls; empty for none.

        Raises:
            ValueError: as of `MuseClient`.
        """
        other = copy.copy(self)
        other._credential = credential_metadata(api_key)
        return other

    async def close(self) -> None:
        """Closes the connection and cancels calls in progress."""
        for channel in self._channels.opened:
            await channel.close()

    @property
    def _stub(self) -> "OrchestratorServiceAsyncStub":
        stub = orchestrator_pb2_grpc.OrchestratorServiceStub(self._channels.current())
        return cast("OrchestratorServiceAsyncStub", stub)

    async def generate(
        self, prompt: str, **options: Unpack[GenerateOptions]
    ) -> list[GeneratedImage]:
        """Generates images, and returns them in order; see `MuseClient.generate`.

        Raises:
            MuseError: the call failed.
        """
        request = generate_request(prompt, options, progress=False)
        async with aclosing(self._events(request)) as events:
            return in_order([each async for each in events if is_image(each)])

    def events(
        self, prompt: str, **options: Unpack[GenerateOptions]
    ) -> AsyncGenerator[Event, None]:
        """Yields the events of a request; see `MuseClient.events`.

        Closing the generator (`contextlib.aclosing`) or cancelling its task cancels the request.

        Raises:
            MuseError: the call failed.
        """
        return self._events(generate_request(prompt, options, progress=True))

    async def _events(
        self, request: orchestrator_pb2.GenerateRequest
    ) -> AsyncGenerator[Event, None]:
        call = self._stub.Generate(request, timeout=self._timeout_s, metadata=self._metadata())
        try:
            async for response in call:
                yield read_event(response)
        except grpc.aio.AioRpcError as error:
            raise muse_error(error, self._address, self._tls) from error
        finally:
            call.cancel()

    async def status(self) -> orchestrator_pb2.GetStatusResponse:
        """Returns health and status of every stage.

        Raises:
            Unavailable: the orchestrator cannot be reached.
        """
        request = orchestrator_pb2.GetStatusRequest()
        try:
            return await self._stub.GetStatus(
                request, timeout=STATUS_TIMEOUT_S, metadata=self._metadata()
            )
        except grpc.aio.AioRpcError as error:
            raise muse_error(error, self._address, self._tls) from error

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (*self._credential, *trace_metadata())
