"""The servicer of the public API, muse.orchestrator.v1."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any

import grpc
from muse.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc

from services.orchestrator.callers.costs import steps_of
from services.orchestrator.callers.gate import admission
from services.orchestrator.calls import Deadline
from services.orchestrator.compatibility import StageCompatibility, resolution_of
from services.orchestrator.edits.budget import PixelBudget
from services.orchestrator.edits.decoding import DecodingProcesses
from services.orchestrator.edits.kind import Source
from services.orchestrator.edits.sources import drop_files, read_source, result_pixels
from services.orchestrator.expected_time import FastestCalls
from services.orchestrator.pipeline import generate
from services.orchestrator.request_log import log_request
from services.orchestrator.requests import checked, with_defaults
from services.orchestrator.safety import SafetySettings, safety_check
from services.orchestrator.scoring import Scorer
from services.orchestrator.signing import PictureSigner
from services.orchestrator.stage_clients import STATUS_TIMEOUT_S, StageAnswer, StageClients
from services.orchestrator.threads import run_in_thread
from services.runtime.observability.tracing import span
from services.runtime.server.endings import deadline_of
from services.runtime.version import package_version
from services.runtime.wire.adapters import check_adapters
from services.runtime.wire.caller import MAX_ID_LENGTH, unpack_caller
from services.runtime.wire.errors import RequestError, shortened

INVALIDATING = (  # answers of a stage that serves something else than it did
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
)


class OrchestratorServicer(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    """Checks each request and runs it through the pipeline."""

    def __init__(
        self,
        stages: StageClients,
        compatibility: StageCompatibility,
        scorer: Scorer | None = None,
        signer: PictureSigner | None = None,
        safety: SafetySettings | None = None,
    ) -> None:
        """Serves these stages.

        Args:
            stages: Clients of the stages.
            compatibility: What the stages agreed on.
            scorer: Ranks the candidates of `best_of`; None refuses such requests.
            signer: Signs the files of images; None for none.
            safety: Classifier and policy of the images; None for none.
        """
        self._stages, self._compatibility = stages, compatibility
        self._budget, self._scorer, self._signer = PixelBudget(), scorer, signer
        self._safety = safety
        self._decoding, self._fastest = DecodingProcesses(), FastestCalls()

    def close(self) -> None:
        """Ends the processes that decode pictures; no call may be open."""
        self._decoding.close()

    async def Generate(
        self, request: orchestrator_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[orchestrator_pb2.GenerateResponse]:
        """Streams the events of a request."""
        arrived_s, deadline = time.monotonic(), Deadline(context.time_remaining())
        admitted = admission()
        # A longer name is refused, and logged.
        caller = admitted.identity.shown(shortened(request.caller.id, MAX_ID_LENGTH))
        async with AsyncExitStack() as stack:
            stack.enter_context(log_request(caller, arrived_s, deadline_of(context)))
            admitted.record.describe(request)
            valid = admitted.with_caller(checked(request, self._stages.decoding))
            if valid.best_of and self._scorer is None:
                raise RequestError(
                    grpc.StatusCode.UNIMPLEMENTED,
                    "best_of: this server has no scorer; start it with --scorer clip:FOLDER",
                )
            safety = safety_check(valid, self._safety)
            admitted.charge(valid, request.ByteSize())
            source: Source | None = None
            if valid.WhichOneof("edit"):
                pixels = await run_in_thread(result_pixels, valid)
                memory = self._budget.held(
                    pixels,
                    deadline,
                    caller=unpack_caller(valid.caller),
                    request_bytes=request.ByteSize(),
                )
                await stack.enter_async_context(memory)
                admitted.quotas.begin_work()
                with span("read source"):
                    source = await self._decoding.run(read_source, valid)
                drop_files(valid)  # the pixels are what is held from here on
            with span("compatibility"):
                compatible = await self._compatibility.get(deadline)
            full = with_defaults(valid, compatible.defaults, compatible.edit_defaults)
            self._fastest.check(full, deadline)
            check_adapters([each.name for each in full.adapters], compatible.adapters)
            admitted.quotas.hold("steps_in_flight", steps_of(full, source))
            try:
                responses = generate(
                    self._stages,
                    full,
                    compatible,
                    deadline,
                    self._fastest,
                    arrived_s=arrived_s,
                    caller=caller,
                    calls=admitted.record.calls,
                    source=source,
                    scorer=self._scorer,
                    signer=self._signer,
                    safety=safety,
                )
                async with aclosing(responses):
                    async for response in responses:
                        if response.HasField("image"):
                            admitted.quotas.begin_work()
                            admitted.record.add_image(response.image)
                        yield response
            except RequestError as error:
                if error.code in INVALIDATING:
                    self._compatibility.invalidate()
                raise

    async def GetStatus(
        self, request: orchestrator_pb2.GetStatusRequest, context: Any
    ) -> orchestrator_pb2.GetStatusResponse:
        """Returns this version, and health and status of every stage, queried now."""
        left_s = context.time_remaining()
        # Less than the time left, so that the report of a hanging stage still reaches the caller.
        timeout_s = STATUS_TIMEOUT_S if left_s is None else min(0.8 * left_s, STATUS_TIMEOUT_S)
        answers = await self._stages.query(timeout_s)
        return orchestrator_pb2.GetStatusResponse(
            stages=[each.report for each in answers],
            version=package_version(),
            side_px=_side_px(answers, self._stages.decoding[-1]),
        )


def _side_px(answers: Sequence[StageAnswer], last: str) -> int:
    """Returns the side of new pictures; 0 if the tokenizer or the last decoding stage is away."""
    responses = {each.report.stage: each.response for each in answers}
    if responses["tokenizer"] is None or responses[last] is None:
        return 0
    return resolution_of(responses[last], responses["tokenizer"]).side_px
