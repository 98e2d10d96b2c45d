"""The public API on the wire."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from muse.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc

from services.orchestrator.pipeline import generate
from services.orchestrator.requests import completed
from services.orchestrator.stages import Deadline, Stages

FULL_NAME = "muse.orchestrator.v1.OrchestratorService"


class OrchestratorServicer(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    """Validates, then lets the pipeline work."""

    def __init__(self, stages: Stages) -> None:
        """Serves with these stages."""
        self._stages = stages

    async def Generate(
        self, request: orchestrator_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[orchestrator_pb2.GenerateResponse]:
        """Streams the events of a request."""
        full = completed(request)
        deadline = Deadline(context.time_remaining())
        found = await self._stages.agreed()
        async with aclosing(generate(self._stages, full, found, deadline)) as responses:
            async for response in responses:
                yield response

    async def GetStatus(
        self, request: orchestrator_pb2.GetStatusRequest, context: Any
    ) -> orchestrator_pb2.GetStatusResponse:
        """Says how every stage is."""
        return orchestrator_pb2.GetStatusResponse(stages=await self._stages.reports())
