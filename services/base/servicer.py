"""The base stage on the wire: converts and checks, and streams what happens."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import numpy as np
from muse.base.v1 import base_pb2, base_pb2_grpc
from muse.common.v1 import stage_pb2

from services.base.engine import STAGE, BaseEngine
from services.decoding.pool import Job, Progress
from services.masked.defaults import checkpoint_defaults
from services.masked.requests import Grid, read_decode, read_resampling
from services.masked.stream import decode_messages
from services.runtime.scheduling.inflight import InflightBatcher
from services.runtime.version import package_version
from services.runtime.wire.caller import unpack_caller
from services.runtime.wire.tensors import unpack_embedding

FULL_NAME = base_pb2.DESCRIPTOR.services_by_name["BaseService"].full_name
DEFAULT_STEPS = 24  # Muse, section 2.8


class BaseServicer(base_pb2_grpc.BaseServiceServicer):
    """Answers muse.base.v1.BaseService."""

    def __init__(self, engine: BaseEngine, batcher: InflightBatcher[Job, Progress]) -> None:
        """Serves an engine through the batcher of its pool.

        Raises:
            CheckpointMismatch: the checkpoint's own defaults are no knobs.
        """
        self._engine, self._batcher = engine, batcher
        config, fingerprint = engine.config, engine.checkpoint.fingerprint
        self._defaults = checkpoint_defaults(engine.checkpoint.folder, steps=DEFAULT_STEPS)
        self._encoder = fingerprint["encoder"]
        self._grid = Grid(
            side=config.grid, vocabulary=config.vocabulary, codebook=fingerprint["codebook"]
        )

    async def Generate(
        self, request: base_pb2.GenerateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[base_pb2.GenerateResponse]:
        """Decodes one image."""
        config, grid = self._engine.config, self._grid
        texts: dict[str, Any] = {"encoder": self._encoder, "hidden": config.text_hidden}
        texts["maximum_length"] = config.text_length
        within_s, caller = context.time_remaining(), unpack_caller(request.claim)
        if request.HasField("resample"):
            row = read_resampling(request, grid, self._defaults)
        else:
            row = read_decode(
                request,
                grid,
                self._defaults,
                most_in_time=lambda sampling: self._batcher.max_steps_within(
                    sampling.steps, sampling.rows, within_s, caller
                ),
            )
        text = np.zeros((0, config.text_hidden), np.float32)  # nothing to hear: unconditional
        if request.HasField("prompt"):
            text = unpack_embedding(request.prompt, field="prompt", **texts)
        negative_text = None
        if request.HasField("negative_prompt"):
            negative_text = unpack_embedding(
                request.negative_prompt, field="negative_prompt", **texts
            )

        job = self._engine.job(text, row, negative_text=negative_text)
        messages = decode_messages(
            base_pb2.GenerateResponse,
            self._batcher,
            job,
            request.progress,
            stage=STAGE,
            grid=grid,
            within_s=within_s,
            caller=caller,
        )
        async with aclosing(messages):
            async for message in messages:
                yield message

    async def GetStatus(
        self, request: base_pb2.GetStatusRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> base_pb2.GetStatusResponse:
        """Says what it serves and how busy it is."""
        checkpoint = self._engine.checkpoint
        return base_pb2.GetStatusResponse(
            defaults=self._defaults,
            status=stage_pb2.StageStatus(
                stage=STAGE,
                preset=str(checkpoint.record.get("preset", "custom")),
                fingerprints=checkpoint.fingerprint,
                checkpoints={STAGE: self._engine.digest},
                device=self._engine.device,
                queued=self._batcher.queued,
                active=self._batcher.active,
                version=package_version(),
                precision=self._engine.layout.precision,
            ),
        )
