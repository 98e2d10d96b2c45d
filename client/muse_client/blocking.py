"""The client for programs without an event loop."""

from collections.abc import Generator
from typing import Unpack

import grpc
from muse.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc

from muse_client.calls import (
    CHANNEL_OPTIONS,
    DEFAULT_ADDRESS,
    DEFAULT_TIMEOUT_S,
    STATUS_TIMEOUT_S,
    GenerateOptions,
    generate_request,
    trace_metadata,
)
from muse_client.edits import EditMethods
from muse_client.errors import muse_error
from muse_client.events import Event, GeneratedImage, in_order, read_event


class MuseClient(EditMethods[list[GeneratedImage]]):
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
        self._stub = orchestrator_pb2_grpc.OrchestratorServiceStub(self._channel)

    def __enter__(self) -> "MuseClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls under way end."""
        self._channel.close()

    def generate(self, prompt: str, **options: Unpack[GenerateOptions]) -> list[GeneratedImage]:
        """Returns the images in order.

        Args:
            prompt: What they show.
            options: `negative_prompt`, `seed`, `count`, `base`, `superres`; see `GenerateOptions`.

        Raises:
            MuseError: the call failed; its subclass says how.
        """
        request = generate_request(prompt, options, progress=False)
        return in_order(each for each in self._events(request) if isinstance(each, GeneratedImage))

    def events(
        self, prompt: str, **options: Unpack[GenerateOptions]
    ) -> Generator[Event, None, None]:
        """Yields what happens, as it happens; closing the generator cancels the request.

        Args:
            prompt: What the images show.
            options: As in `generate`; with an edit, such as `inpaint=inpainting(...)`, too.

        Raises:
            MuseError: the call failed; its subclass says how.
        """
        return self._events(generate_request(prompt, options, progress=True))

    def _events(self, request: orchestrator_pb2.GenerateRequest) -> Generator[Event, None, None]:
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
