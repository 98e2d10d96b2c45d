"""gRPC servicer of a masked stage: checks requests and streams the events of their decodes."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Generic

import grpc
import numpy as np
from muse.base.v1 import base_pb2
from muse.common.v1 import decoding_pb2, stage_pb2

from services.decoding.pool import DecodeRequest
from services.decoding.slots import Progress
from services.decoding.state import Row
from services.masked.defaults import checkpoint_defaults, edit_defaults
from services.masked.engine import MaskedEngine
from services.masked.requests import Grid, pack_state, pack_tokens, read_start
from services.masked.spec import (
    Config,
    GenerateRequest,
    GenerateResponse,
    GetStatusRequest,
    GetStatusResponse,
)
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.runtime.observability.tracing import span
from services.runtime.scheduling.inflight import InflightBatcher
from services.runtime.scheduling.slots import Preempted
from services.runtime.version import package_version
from services.runtime.wire.adapters import check_adapters, unpack_adapters
from services.runtime.wire.caller import unpack_caller
from services.runtime.wire.tensors import unpack_embedding
from services.runtime.wire.timing import Timed, pack_timing


class MaskedServicer(Generic[Config]):
    """Answers the gRPC service of a masked stage."""

    def __init__(
        self, engine: MaskedEngine[Config], batcher: InflightBatcher[DecodeRequest, Progress]
    ) -> None:
        """Serves an engine through the batcher of its pool.

        Raises:
            CheckpointMismatch: the checkpoint's default sampling parameters are malformed.
        """
        self._engine, self._batcher, self._spec = engine, batcher, engine.spec
        config, checkpoint = engine.config, engine.checkpoint
        self._defaults = checkpoint_defaults(checkpoint.folder, steps=engine.spec.default_steps)
        self._edit_defaults = edit_defaults(checkpoint.folder)
        if self._spec.status_response is not base_pb2.GetStatusResponse and (
            self._edit_defaults.ListFields()
        ):
            raise CheckpointMismatch(
                f"{checkpoint.folder}: expected no sampling parameters of mask-free edits, which "
                "base alone decodes"
            )
        self._grid = Grid(
            side=config.grid,
            vocabulary=config.vocabulary,
            codebook=checkpoint.fingerprint["codebook"],
        )
        self._unpack_text = partial(
            unpack_embedding,
            encoder=checkpoint.fingerprint["encoder"],
            hidden=config.text_hidden,
            lengths=range(config.shortest_text, config.text_length + 1),
        )

    async def Generate(
        self,
        request: GenerateRequest,
        context: grpc.aio.ServicerContext[GenerateRequest, GenerateResponse],
    ) -> AsyncIterator[GenerateResponse]:
        """Decodes one image, and streams its progress and result.

        A server that stops sends the state of the decode in place of a result.
        """
        engine = self._engine
        within_s, caller = context.time_remaining(), unpack_caller(request.caller)
        adapters = unpack_adapters(request.adapters)
        check_adapters(adapters, engine.adapters)
        row = read_start(
            request,
            self._grid,
            self._defaults,
            max_steps_within=lambda sampling: self._batcher.max_steps_within(
                sampling.steps, sampling.rows, within_s, caller
            ),
        )
        condition = self._spec.read_condition(request, engine.config, engine.checkpoint.fingerprint)
        text = np.zeros((0, engine.config.text_hidden), np.float32)  # no prompt: unconditional
        if request.HasField("prompt"):
            text = self._unpack_text(request.prompt, field="prompt")
        negative_text = None
        if request.HasField("negative_prompt"):
            negative_text = self._unpack_text(request.negative_prompt, field="negative_prompt")

        detail = request.progress
        events = self._batcher.events(
            engine.decode_request(
                row, text, *condition, negative_text=negative_text, adapters=adapters
            ),
            stream=detail != decoding_pb2.PROGRESS_DETAIL_UNSPECIFIED,
            within_s=within_s,
            caller=caller,
        )
        with_state = detail == decoding_pb2.PROGRESS_DETAIL_STATES
        async with aclosing(events):
            async for event in events:
                yield self._response(event, row, with_state=with_state)

    def _response(
        self,
        event: Progress | Timed[Progress] | Preempted[Progress],
        row: Row,
        *,
        with_state: bool,
    ) -> GenerateResponse:
        """Packs a step, the timed result, or the state of a decode that this server gives up."""
        grid, response = self._grid, self._spec.response
        if isinstance(event, Timed):
            with span("encode"):
                result = decoding_pb2.DecodeResult(
                    tokens=pack_tokens(event.result.tokens, grid),
                    timing=pack_timing(self._spec.name, event),
                    steps=event.result.total,
                )
                return response(result=result)
        if isinstance(event, Preempted):
            return response(preempted=pack_state(event.state, row, grid))
        state = pack_state(event, row, grid) if with_state else None
        progress = decoding_pb2.DecodeProgress(step=event.step, total=event.total, state=state)
        return response(progress=progress)

    async def GetStatus(
        self,
        request: GetStatusRequest,
        context: grpc.aio.ServicerContext[GetStatusRequest, GetStatusResponse],
    ) -> GetStatusResponse:
        """Returns what this replica serves and how busy it is."""
        engine, load = self._engine, self._batcher.load()
        response = self._spec.status_response(
            defaults=self._defaults,
            status=stage_pb2.StageStatus(
                stage=self._spec.name,
                preset=str(engine.checkpoint.record.get("preset", "custom")),
                fingerprints=engine.checkpoint.fingerprint,
                checkpoints={self._spec.name: engine.digest},
                device=engine.serving.device,
                queued=load.queued,
                active=load.active,
                version=package_version(),
                precision=engine.serving.precision,
                rows=engine.serving.rows_at_once,
                adapters=engine.adapters,
            ),
        )
        if isinstance(response, base_pb2.GetStatusResponse):
            response.mask_free_edit_defaults.CopyFrom(self._edit_defaults)
        return response
