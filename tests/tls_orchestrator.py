"""An orchestrator without stages, for the tests of clients that speak TLS."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from muse.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc

from services.runtime.server.process import Service, running_server
from services.runtime.server.settings import ServerSettings
from services.stages import ORCHESTRATOR
from tests.authority import Pair


class _Orchestrator(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    async def GetStatus(self, request: Any, context: Any) -> orchestrator_pb2.GetStatusResponse:
        return orchestrator_pb2.GetStatusResponse()


async def _nothing() -> None:
    pass


@asynccontextmanager
async def serving(folder: Path, pair: Pair | None, **settings: Any) -> AsyncIterator[str]:
    """Runs an orchestrator with a certificate, or in plain text; yields its address."""
    service = Service(name=ORCHESTRATOR, servicer=_Orchestrator(), warm_up=_nothing, close=_nothing)
    if pair is not None:
        settings["tls_cert"], settings["tls_key"] = pair.write(folder, "server")
    async with running_server(service, ServerSettings(**settings)) as running:
        yield running.address
