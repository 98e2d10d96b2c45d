"""The client for programs without an event loop."""

from collections.abc import Iterator
from typing import Any, Unpack

import grpc
from muse.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc

from services.orchestrator.addresses import DEFAULT_ADDRESS
from services.orchestrator.client.calls import (
    CHANNEL_OPTIONS,
    DEFAULT_TIMEOUT_S,
    STATUS_TIMEOUT_S,
    Wanted,
    generate_request,
    trace_metadata,
)
from services.orchestrator.client.errors import muse_error
from services.orchestrator.client.events import Event, Picture, read_event


class MuseClient:
    """Calls an orchestrator; a context manager. Threads may share one."""

    def __init__(
        self, address: str = DEFAULT_ADDRESS, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> None:
        """Connects at the first call.

        Args:
            address: "host:port" of the orchestrator.
            timeout_s: Seconds a request may take; the servers stop working on it then.
        """
        self._address, self._timeout_s = address, timeout_s
        self._channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._stub: Any = orchestrator_pb2_grpc.OrchestratorServiceStub(self._channel)

    def __enter__(self) -> "MuseClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls under way end."""
        self._channel.close()

    def generate(self, prompt: str, **wanted: Unpack[Wanted]) -> list[Picture]:
        """Returns the pictures in order.

        Args:
            prompt: What they show.
            wanted: `negative_prompt`, `seed`, `count`, `base`, `superres`; see `Wanted`.

        Raises:
            MuseError: the call failed; its subclass says how.
        """
        request = generate_request(prompt, wanted, progress=False)
        pictures = (event for event in self._events(request) if isinstance(event, Picture))
        return sorted(pictures, key=lambda picture: picture.index)

    def events(self, prompt: str, **wanted: Unpack[Wanted]) -> Iterator[Event]:
        """Yields what happens, as it happens; a reader who stops early cancels the request.

        Args:
            prompt: What the pictures show.
            wanted: As in `generate`.

        Raises:
            MuseError: the call failed; its subclass says how.
        """
        request = generate_request(prompt, wanted, progress=True)
        return self._events(request)

    def _events(self, request: orchestrator_pb2.GenerateRequest) -> Iterator[Event]:
        call = self._stub.Generate(request, timeout=self._timeout_s, metadata=trace_metadata())
        try:
            for response in call:
                yield read_event(response)
        except grpc.RpcError as error:
            raise muse_error(error, self._address) from error
        finally:
            call.cancel()

    def status(self) -> orchestrator_pb2.GetStatusResponse:
        """Asks how every stage is.

        Raises:
            Unavailable: the orchestrator cannot be reached.
        """
        request = orchestrator_pb2.GetStatusRequest()
        try:
            return self._stub.GetStatus(
                request, timeout=STATUS_TIMEOUT_S, metadata=trace_metadata()
            )
        except grpc.RpcError as error:
            raise muse_error(error, self._address) from error
