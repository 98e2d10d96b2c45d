"""gRPC servicer of the text encoder: checks texts, batches them, packs embeddings."""

from collections.abc import Sequence

import grpc
from muse.common.v1 import stage_pb2, warning_pb2
from muse.text_encoder.v1 import text_encoder_pb2, text_encoder_pb2_grpc

from services.runtime.observability.tracing import span
from services.runtime.scheduling.batching import Batcher
from services.runtime.version import package_version
from services.runtime.wire.errors import invalid_field
from services.runtime.wire.tensors import pack_embedding
from services.runtime.wire.timing import pack_timing
from services.text_encoder.engine import Embedding, Rows, TextEncoderEngine
from services.text_encoder.loading import STAGE
from services.text_encoder.vocabulary import PromptTooLong

MAX_TEXTS = 16


class TextEncoderServicer(text_encoder_pb2_grpc.TextEncoderServiceServicer):
    """Answers muse.text_encoder.v1.TextEncoderService."""

    def __init__(self, engine: TextEncoderEngine, batcher: Batcher[Rows, list[Embedding]]) -> None:
        """Serves an engine through a batcher of its requests."""
        self._engine, self._batcher = engine, batcher

    async def Encode(
        self,
        request: text_encoder_pb2.EncodeRequest,
        context: grpc.aio.ServicerContext,
    ) -> text_encoder_pb2.EncodeResponse:
        """Encodes texts.

        Raises:
            RequestError: INVALID_ARGUMENT: no text, too many, or one that is too long.
                RESOURCE_EXHAUSTED: the queue is full.
        """
        if not 1 <= len(request.texts) <= MAX_TEXTS:
            raise invalid_field(
                "texts", expected=f"1 to {MAX_TEXTS} texts", got=f"{len(request.texts)} texts"
            )
        rows = [self._tokenize(index, text) for index, text in enumerate(request.texts)]
        timed = await self._batcher.submit(rows)
        with span("encode"):
            return text_encoder_pb2.EncodeResponse(
                embeddings=[
                    pack_embedding(embedding, self._engine.loaded.fingerprint)
                    for embedding in timed.result
                ],
                timing=pack_timing(STAGE, timed),
                warnings=self._warnings(request.texts),
            )

    def _warnings(self, texts: Sequence[str]) -> list[warning_pb2.RequestWarning]:
        known = self._engine.loaded.known_words
        unknown = known.unknown(texts) if known is not None else ()
        if known is None or not unknown:
            return []
        return [
            warning_pb2.RequestWarning(
                reason="UNKNOWN_WORDS", message=known.warning(unknown), words=unknown
            )
        ]

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
        """Returns what this replica serves and how busy it is."""
        engine, loaded, load = self._engine, self._engine.loaded, self._batcher.load()
        return text_encoder_pb2.GetStatusResponse(
            status=stage_pb2.StageStatus(
                stage=STAGE,
                preset=loaded.preset,
                fingerprints={"encoder": loaded.fingerprint},
                checkpoints={STAGE: loaded.digest},
                device=engine.device,
                queued=load.queued,
                active=load.active,
                version=package_version(),
                precision=loaded.precision,
            )
        )
