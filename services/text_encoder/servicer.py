"""The text encoder's wire: checks texts, batches them, packs embeddings."""

import asyncio
from collections.abc import Sequence

import grpc
from muse.common.v1 import stage_pb2
from muse.text_encoder.v1 import text_encoder_pb2, text_encoder_pb2_grpc

from services.runtime.observability.tracing import span
from services.runtime.scheduling.batching import Batcher, BatchShape
from services.runtime.scheduling.device_thread import DeviceThread
from services.runtime.server.process import Service
from services.runtime.server.settings import BatchedServerSettings
from services.runtime.version import package_version
from services.runtime.wire.errors import invalid_field
from services.runtime.wire.tensors import pack_embedding
from services.runtime.wire.timing import pack_timing
from services.text_encoder.config import preset_of
from services.text_encoder.engine import Embedding, TextEncoderEngine
from services.text_encoder.vocabulary import PromptTooLong

NAME = "text_encoder"
FULL_NAME = "muse.text_encoder.v1.TextEncoderService"
MOST_TEXTS = 16

Rows = list[list[int]]  # the ids of one request's texts


class TextEncoderServicer(text_encoder_pb2_grpc.TextEncoderServiceServicer):
    """Answers muse.text_encoder.v1."""

    def __init__(
        self, engine: TextEncoderEngine, device: DeviceThread, settings: BatchedServerSettings
    ) -> None:
        """Prepares to batch.

        Args:
            engine: Does the work.
            device: The thread the engine runs on.
            settings: How requests are batched.
        """
        self._engine = engine
        self.batcher: Batcher[Rows, list[Embedding]] = Batcher(
            self._embed,
            device,
            max_batch_size=settings.max_batch_size,
            max_wait_s=settings.max_wait_ms / 1000,
            max_queued=settings.max_queued,
            shape_of=self._shape_of,
        )

    def _embed(self, requests: list[Rows]) -> list[list[Embedding]]:
        embeddings = iter(self._engine.embed([row for rows in requests for row in rows]))
        return [[next(embeddings) for _ in rows] for rows in requests]

    def _shape_of(self, requests: Sequence[Rows]) -> BatchShape:
        rows = [row for rows in requests for row in rows]
        return BatchShape(rows=len(rows), bucket=self._engine.computed_rows(rows))

    async def Encode(
        self,
        request: text_encoder_pb2.EncodeRequest,
        context: grpc.aio.ServicerContext,
    ) -> text_encoder_pb2.EncodeResponse:
        """Encodes texts.

        Raises:
            RequestError: INVALID_ARGUMENT: no text, too many, or one that is too long;
                RESOURCE_EXHAUSTED: too many requests wait.
        """
        if not 1 <= len(request.texts) <= MOST_TEXTS:
            raise invalid_field(
                "texts", expected=f"1 to {MOST_TEXTS} texts", got=f"{len(request.texts)} texts"
            )
        rows = [self._tokenize(index, text) for index, text in enumerate(request.texts)]
        timed = await self.batcher.submit(rows)
        with span("encode"):
            return text_encoder_pb2.EncodeResponse(
                embeddings=[
                    pack_embedding(embedding.values, self._engine.info.fingerprint)
                    for embedding in timed.result
                ],
                timing=pack_timing(NAME, timed),
            )

    def _tokenize(self, index: int, text: str) -> list[int]:
        try:
            return self._engine.tokenize(text)
        except PromptTooLong as error:
            raise invalid_field(
                f"texts[{index}]",
                expected=f"at most {error.limit} tokens, the end token included",
                got=f"{error.tokens} tokens",
                advice="shorten the text",
            ) from error

    async def GetStatus(
        self,
        request: text_encoder_pb2.GetStatusRequest,
        context: grpc.aio.ServicerContext,
    ) -> text_encoder_pb2.GetStatusResponse:
        """Says what this replica serves and how busy it is."""
        info = self._engine.info
        return text_encoder_pb2.GetStatusResponse(
            status=stage_pb2.StageStatus(
                stage=NAME,
                preset=preset_of(self._engine.config),
                fingerprints={"encoder": info.fingerprint},
                checkpoints={NAME: info.digest},
                device=info.device,
                queued=self.batcher.queued,
                active=self.batcher.active,
                version=package_version(),
                precision=info.precision,
            )
        )


def text_encoder_service(
    engine: TextEncoderEngine, device: DeviceThread, settings: BatchedServerSettings
) -> Service:
    """Returns the service that a server runs.

    Args:
        engine: Loaded; compiled by the service's warm-up.
        device: The thread the engine runs on; closed with the service.
        settings: How requests are batched.
    """
    servicer = TextEncoderServicer(engine, device, settings)

    def register(server: grpc.aio.Server) -> None:
        text_encoder_pb2_grpc.add_TextEncoderServiceServicer_to_server(servicer, server)

    async def warm_up() -> None:
        await device.run(engine.warm_up)

    async def close() -> None:
        await servicer.batcher.drain()
        await asyncio.to_thread(device.close)

    return Service(
        name=NAME,
        full_name=FULL_NAME,
        register=register,
        warm_up=warm_up,
        close=close,
        load=servicer.batcher.load,
    )
