"""The blocking client."""

from collections.abc import Generator
from typing import Unpack

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
from muse_client.channels import blocking_channels
from muse_client.credentials import credential_metadata
from muse_client.edits import EditMethods
from muse_client.errors import muse_error
from muse_client.events import Event, GeneratedImage, in_order, is_image, read_event
from muse_client.tls import Tls


class MuseClient(EditMethods[list[GeneratedImage]]):
    """Blocking client of an orchestrator; a context manager. Threads may share one."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        tls: Tls | None = None,
        api_key: str | None = None,
    ) -> None:
        """Creates a client, which connects at its first call.

        Args:
            address: Address of the orchestrator: HOST:PORT, [IPV6]:PORT, dns:///NAME:PORT, or a
                host alone, whose port is 50050.
            timeout_s: Deadline of each request in seconds; the servers cancel the request then.
            tls: Authorities and certificate for TLS; None for plain text.
            api_key: API key or token to present; the environment's MUSE_API_KEY by default, if it
                is set. In plain text whoever sees the bytes of a call sees the key.

        Raises:
            ValueError: the address has another spelling, a file of `tls` cannot be read or used, or
                the key has a character that no header may have.
        """
        self._address, self._timeout_s, self._tls = target_of(address, DEFAULT_PORT), timeout_s, tls
        self._credential = credential_metadata(api_key)
        self._channels = blocking_channels(self._address, tls)

    def __enter__(self) -> "MuseClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection and cancels calls in progress."""
        for channel in self._channels.opened:
            channel.close()

    @property
    def _stub(self) -> orchestrator_pb2_grpc.OrchestratorServiceStub:
        return orchestrator_pb2_grpc.OrchestratorServiceStub(self._channels.current())

    def generate(self, prompt: str, **options: Unpack[GenerateOptions]) -> list[GeneratedImage]:
        """Generates images, and returns them in order.

        Args:
            prompt: Description of the images.
            options: Options such as `seed` and `count`; see `GenerateOptions`.

        Raises:
            MuseError: the call failed.
        """
        request = generate_request(prompt, options, progress=False)
        return in_order(each for each in self._events(request) if is_image(each))

    def events(
        self, prompt: str, **options: Unpack[GenerateOptions]
    ) -> Generator[Event, None, None]:
        """Yields the events of a request; closing the generator cancels the request.

        Args:
            prompt: Description of the images.
            options: As in `generate`; with an edit, such as `inpaint=inpainting(...)`, too.

        Raises:
            MuseError: the call failed.
        """
        return self._events(generate_request(prompt, options, progress=True))

    def _events(self, request: orchestrator_pb2.GenerateRequest) -> Generator[Event, None, None]:
        call = self._stub.Generate(request, timeout=self._timeout_s, metadata=self._metadata())
        try:
            for response in call:
                yield read_event(response)
        except grpc.RpcError as error:
            raise muse_error(error, self._address, self._tls) from error
        finally:
            call.cancel()

    def status(self) -> orchestrator_pb2.GetStatusResponse:
        """Returns health and status of every stage.

        Raises:
            Unavailable: the orchestrator cannot be reached.
        """
        request = orchestrator_pb2.GetStatusRequest()
        try:
            return self._stub.GetStatus(
                request, timeout=STATUS_TIMEOUT_S, metadata=self._metadata()
            )
        except grpc.RpcError as error:
            raise muse_error(error, self._address, self._tls) from error

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (*self._credential, *trace_metadata())
