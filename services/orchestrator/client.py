"""The Python SDK: `MuseClient().generate("an owl")`. Needs neither JAX nor Flax."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
from muse.common.v1.decoding_pb2 import Sampling
from muse.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from PIL import Image

from services.runtime.errors import read_error

DEFAULT_ADDRESS = "127.0.0.1:50050"


@dataclass(frozen=True)
class Picture:
    """A finished picture.

    Attributes:
        image: Its pixels.
        png: Its file, metadata included.
        seed: What made it.
    """

    image: Image.Image
    png: bytes
    seed: int


class MuseClient:
    """Calls an orchestrator; a context manager."""

    def __init__(self, address: str = DEFAULT_ADDRESS, *, timeout_s: float = 300.0) -> None:
        """Connects at the first call."""
        self._channel = grpc.insecure_channel(
            address, options=[("grpc.max_receive_message_length", 64 * 2**20)]
        )
        self._stub = orchestrator_pb2_grpc.OrchestratorServiceStub(self._channel)
        self._timeout_s = timeout_s

    def __enter__(self) -> "MuseClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def events(
        self,
        prompt: str,
        *,
        negative_prompt: str = "",
        seed: int | None = None,
        count: int = 1,
        base: Sampling | None = None,
        superres: Sampling | None = None,
    ) -> Iterator[orchestrator_pb2.GenerateResponse]:
        """Yields every event of a request.

        Raises:
            RequestError: the request was refused; its code and violations say why.
            ValueError: count or seed do not fit the wire.
        """
        request = orchestrator_pb2.GenerateRequest(
            prompt=prompt,
            negative_prompt=negative_prompt,
            count=count,
            seed=seed,
            base=base,
            superres=superres,
            progress=True,
        )
        call = self._stub.Generate(request, timeout=self._timeout_s)
        try:
            yield from call
        except grpc.RpcError as error:
            raise read_error(error) from error
        finally:
            call.cancel()

    def generate(
        self, prompt: str, *, negative_prompt: str = "", seed: int | None = None, count: int = 1
    ) -> list[Picture]:
        """Returns the pictures in order.

        Raises:
            RequestError: the request was refused.
        """
        found = {}
        for event in self.events(prompt, negative_prompt=negative_prompt, seed=seed, count=count):
            if event.WhichOneof("event") == "image":
                made = event.image
                image = Image.open(io.BytesIO(made.png))
                found[made.index] = Picture(image, made.png, made.seed)
        return [found[index] for index in sorted(found)]

    def status(self) -> orchestrator_pb2.GetStatusResponse:
        """Asks how every stage is.

        Raises:
            RequestError: the orchestrator cannot be reached.
        """
        try:
            return self._stub.GetStatus(orchestrator_pb2.GetStatusRequest(), timeout=15)
        except grpc.RpcError as error:
            raise read_error(error) from error
