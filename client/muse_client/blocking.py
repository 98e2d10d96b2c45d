"""The client for programs without an event loop."""

from collections.abc import Iterable, Iterator
from typing import Any, Unpack

import grpc
from muse.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc

from muse_client.calls import (
    CHANNEL_OPTIONS,
    DEFAULT_ADDRESS,
    DEFAULT_TIMEOUT_S,
    STATUS_TIMEOUT_S,
    Wanted,
    generate_request,
    trace_metadata,
)
from muse_client.edits import (
    ImageFile,
    inpainting,
    mask_free_editing,
    outpainting,
    variation,
)
from muse_client.errors import muse_error
from muse_client.events import Event, Picture, in_order, read_event


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
        return in_order(pictures)

    def inpaint(
        self,
        image: ImageFile,
        mask: ImageFile | None,
        prompt: str,
        *,
        feather_px: int | None = None,
        without_composite: bool = False,
        **wanted: Unpack[Wanted],
    ) -> list[Picture]:
        """Returns the picture with what the mask covers painted anew, once for each seed.

        Args:
            image: A file's name, its bytes, or a PIL image.
            mask: White where new, black where kept; None for the picture's alpha.
            prompt: What the whole picture shows.
            feather_px: Pixels inside the mask over which the new fades in.
            without_composite: Returns the decoded picture everywhere.
            wanted: As in `generate`.

        Raises:
            MuseError: the call failed; its subclass says how.
        """
        wanted["inpaint"] = inpainting(
            image, mask, feather_px=feather_px, without_composite=without_composite
        )
        return self.generate(prompt, **wanted)

    def outpaint(
        self,
        image: ImageFile,
        prompt: str,
        *,
        left_px: int = 0,
        top_px: int = 0,
        right_px: int = 0,
        bottom_px: int = 0,
        **wanted: Unpack[Wanted],
    ) -> list[Picture]:
        """Returns the picture extended by so many pixels, once for each seed.

        Args:
            image: A file's name, its bytes, or a PIL image.
            prompt: What the whole picture shows.
            left_px: Pixels to add on the left, as on the other sides.
            top_px: On top.
            right_px: On the right.
            bottom_px: At the bottom.
            wanted: As in `generate`.

        Raises:
            MuseError: the call failed; its subclass says how.
        """
        wanted["outpaint"] = outpainting(
            image, left_px=left_px, top_px=top_px, right_px=right_px, bottom_px=bottom_px
        )
        return self.generate(prompt, **wanted)

    def edit(
        self,
        image: ImageFile,
        prompt: str,
        *,
        iterations: int | None = None,
        fraction: float | None = None,
        keep: Iterable[int] = (),
        strength: float | None = None,
        **wanted: Unpack[Wanted],
    ) -> list[Picture]:
        """Returns the picture changed towards the prompt without a mask.

        Args:
            image: A file's name, its bytes, or a PIL image.
            prompt: What the changed picture shows.
            iterations: 1 to 256; 100 by default.
            fraction: Share of the tokens that each of them draws anew; 0.08 by default.
            keep: Iterations after which it is wanted besides the last; `iteration` of each
                picture says which it is.
            strength: More than 0 to 1, instead of `iterations`: 200 times that.
            wanted: As in `generate`.

        Raises:
            MuseError: the call failed; its subclass says how.
        """
        wanted["mask_free_edit"] = mask_free_editing(
            image, iterations=iterations, fraction=fraction, keep=keep, strength=strength
        )
        return self.generate(prompt, **wanted)

    def vary(
        self,
        image: ImageFile,
        prompt: str = "",
        *,
        strength: float | None = None,
        **wanted: Unpack[Wanted],
    ) -> list[Picture]:
        """Returns the picture with a share of it painted anew, once for each seed.

        Args:
            image: A file's name, its bytes, or a PIL image.
            prompt: What it shows; nothing but the picture says so by default.
            strength: The share, more than 0 to 1; 0.5 by default.
            wanted: As in `generate`.

        Raises:
            MuseError: the call failed; its subclass says how.
        """
        wanted["vary"] = variation(image, strength=strength)
        return self.generate(prompt, **wanted)

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
