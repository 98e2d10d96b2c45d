"""gRPC servicer of the tokenizers: checks images and tokens, and batches them."""

from functools import partial

import grpc
import numpy as np
from muse.common.v1 import stage_pb2
from muse.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc

from services.runtime.observability.tracing import span
from services.runtime.scheduling.batching import Batcher
from services.runtime.version import package_version
from services.runtime.wire.errors import failed_precondition
from services.runtime.wire.tensors import UINT8, pack_grid, pack_tensor, unpack_grid, unpack_tensor
from services.runtime.wire.timing import pack_timing
from services.tokenizer.engine import ROLES, Job, TokenizerEngine, Tokenizers
from services.tokenizer.families import STAGE


class TokenizerServicer(tokenizer_pb2_grpc.TokenizerServiceServicer):
    """Answers muse.tokenizer.v1.TokenizerService."""

    def __init__(self, tokenizers: Tokenizers, batcher: Batcher[Job, np.ndarray]) -> None:
        """Serves tokenizers through a batcher of their requests."""
        self._tokenizers, self._batcher = tokenizers, batcher

    def _engine(self, codebook: str, field: str) -> TokenizerEngine:
        engine = self._tokenizers.by_codebook.get(codebook)
        if engine is None:
            raise failed_precondition(
                f"{field}: expected {' or '.join(self._tokenizers.by_codebook)}, "
                f"got {codebook or 'none'}; serve the tokenizer the tokens were made with"
            )
        return engine

    async def Encode(
        self, request: tokenizer_pb2.EncodeRequest, context: grpc.aio.ServicerContext
    ) -> tokenizer_pb2.EncodeResponse:
        """Converts an image to tokens."""
        engine = self._engine(request.codebook, "codebook")
        side = engine.config.image_size
        pixels = unpack_tensor(
            request.pixels, field="pixels", data_types=(UINT8,), shape=(side, side, 3)
        )
        timed = await self._batcher.submit(partial(engine.start_encode, pixels))
        with span("encode"):
            return tokenizer_pb2.EncodeResponse(
                tokens=pack_grid(timed.result, engine.codebook), timing=pack_timing(STAGE, timed)
            )

    async def Decode(
        self, request: tokenizer_pb2.DecodeRequest, context: grpc.aio.ServicerContext
    ) -> tokenizer_pb2.DecodeResponse:
        """Converts tokens to an image."""
        engine = self._engine(request.tokens.codebook, "tokens.codebook")
        ids = unpack_grid(
            request.tokens,
            field="tokens",
            codebook=engine.codebook,
            codebook_size=engine.config.codebook_size,
            shape=(engine.config.grid, engine.config.grid),
        )
        timed = await self._batcher.submit(partial(engine.start_decode, ids))
        with span("encode"):
            return tokenizer_pb2.DecodeResponse(
                pixels=pack_tensor(timed.result), timing=pack_timing(STAGE, timed)
            )

    async def GetStatus(
        self, request: tokenizer_pb2.GetStatusRequest, context: grpc.aio.ServicerContext
    ) -> tokenizer_pb2.GetStatusResponse:
        """Returns what this replica serves and how busy it is."""
        engines, load = self._tokenizers.engines, self._batcher.load()
        record = list(engines.values())[-1].checkpoint.record
        return tokenizer_pb2.GetStatusResponse(
            resolutions={
                ROLES[name]: tokenizer_pb2.Resolution(
                    side_px=engine.config.image_size, grid=engine.config.grid
                )
                for name, engine in engines.items()
            },
            status=stage_pb2.StageStatus(
                stage=STAGE,
                preset=str(record.get("preset", "custom")),
                fingerprints={ROLES[name]: engine.codebook for name, engine in engines.items()},
                checkpoints={f"{STAGE}/{name}": engine.digest for name, engine in engines.items()},
                device=self._tokenizers.device,
                queued=load.queued,
                active=load.active,
                version=package_version(),
                precision=self._tokenizers.precision,
            ),
        )
