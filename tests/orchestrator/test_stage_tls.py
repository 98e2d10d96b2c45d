"""Calls of stages over TLS: identities, names of Services, and renewed certificates."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from muse.base.v1 import base_pb2, base_pb2_grpc

from services.orchestrator.replicas.replica import HealthState
from services.orchestrator.replicas.replica_set import ReplicaSet
from services.orchestrator.stage_clients import StageAnswer, StageClients
from services.runtime.server.certificates import CertificateFiles, ReloadedCertificates
from services.runtime.server.process import RunningServer, Service, running_server
from services.runtime.server.settings import ServerSettings
from services.stages import STAGES
from tests.authority import ORCHESTRATOR, Authority
from tests.waiting import until

HOST = "127.0.0.1"


class Base(base_pb2_grpc.BaseServiceServicer):
    """Answers GetStatus."""

    async def GetStatus(self, request: Any, context: Any) -> base_pb2.GetStatusResponse:
        return base_pb2.GetStatusResponse()


async def nothing() -> None:
    """Warms up and closes nothing."""


@asynccontextmanager
async def a_stage(folder: Path, authority: Authority, *names: str) -> AsyncIterator[RunningServer]:
    """Runs base with a certificate of these names, which accepts the orchestrator alone."""
    cert, key = authority.issue(*names).write(folder, "base")
    settings = ServerSettings(
        tls_cert=cert,
        tls_key=key,
        tls_ca=authority.write(folder),
        tls_clients=(ORCHESTRATOR,),
    )
    service = Service(name="base", servicer=Base(), warm_up=nothing, close=nothing)
    async with running_server(service, settings) as running:
        yield running


def files(folder: Path, authority: Authority, name: str) -> CertificateFiles:
    """Writes the orchestrator's certificate, over one that is there."""
    cert, key = authority.issue(name).write(folder, "orchestrator")
    ca = authority.write(folder, "stages")
    return CertificateFiles(setting="stage_tls", cert=cert, key=key, ca=ca)


@asynccontextmanager
async def calling(address: str, certificates: CertificateFiles) -> AsyncIterator[StageClients]:
    addresses = {**dict.fromkeys(STAGES, f"{HOST}:1"), "base": address}
    stages = StageClients(addresses, certificate_files=certificates)
    try:
        yield stages
    finally:
        await stages.close()


async def base_of(stages: StageClients) -> StageAnswer:
    """Queries base once its health is known."""
    (replica,) = stages.replicas["base"].replicas
    await until(lambda: replica.health is not HealthState.UNKNOWN)
    return next(each for each in await stages.query() if each.report.stage == "base")


async def test_the_orchestrators_identity_is_answered(tmp_path: Path) -> None:
    authority = Authority()
    async with (
        a_stage(tmp_path, authority, HOST) as running,
        calling(running.address, files(tmp_path, authority, ORCHESTRATOR)) as stages,
    ):
        answer = await base_of(stages)
    assert answer.report.serving
    assert answer.response == base_pb2.GetStatusResponse()


async def test_another_identity_is_reported_with_the_stages_own_words(tmp_path: Path) -> None:
    authority = Authority()
    async with (
        a_stage(tmp_path, authority, HOST) as running,
        calling(running.address, files(tmp_path, authority, "spiffe://other")) as stages,
    ):
        answer = await base_of(stages)
    assert answer.response is None
    said = "PERMISSION_DENIED: this server does not accept calls of spiffe://other"
    assert answer.report.unavailable_reason.startswith(said)


async def test_a_stage_of_another_authority_is_not_called(tmp_path: Path) -> None:
    async with (
        a_stage(tmp_path, Authority(), HOST) as running,
        calling(running.address, files(tmp_path, Authority("other"), ORCHESTRATOR)) as stages,
    ):
        answer = await base_of(stages)
    assert "CERTIFICATE_VERIFY_FAILED" in answer.report.unavailable_reason


async def test_a_renewed_certificate_is_shown_on_new_connections(tmp_path: Path) -> None:
    authority = Authority()
    async with (
        a_stage(tmp_path, authority, HOST) as running,
        calling(running.address, files(tmp_path, authority, "spiffe://other")) as stages,
    ):
        assert "PERMISSION_DENIED" in (await base_of(stages)).report.unavailable_reason
        replicas = stages.replicas["base"]
        (before,) = replicas.replicas
        stages.renew()
        assert replicas.replicas == [before]

        files(tmp_path, authority, ORCHESTRATOR)
        stages.renew()
        assert replicas.choose() is before  # until the new connection serves
        await until(lambda: replicas.replicas != [before])
        assert (await base_of(stages)).report.unavailable_reason == ""


async def test_a_certificate_that_no_stage_accepts_leaves_the_old_connection(
    tmp_path: Path,
) -> None:
    authority = Authority()
    async with (
        a_stage(tmp_path, authority, HOST) as running,
        calling(running.address, files(tmp_path, authority, ORCHESTRATOR)) as stages,
    ):
        assert (await base_of(stages)).report.serving
        replicas = stages.replicas["base"]
        (before,) = replicas.replicas
        files(tmp_path, Authority("other"), ORCHESTRATOR)
        stages.renew()
        (renewed,) = replicas._renewed.values()
        await until(lambda: renewed.health is HealthState.NOT_SERVING)

        assert replicas.replicas == [before]
        assert (await base_of(stages)).report.serving


@pytest.mark.parametrize(("name", "health"), [("base", "SERVING"), ("bass", "NOT_SERVING")])
async def test_a_pod_that_is_called_by_its_address_shows_the_name_of_its_service(
    name: str, health: str, tmp_path: Path
) -> None:
    authority = Authority()
    async with a_stage(tmp_path, authority, "base", "base.muse.svc") as running:
        certificates = ReloadedCertificates(files(tmp_path, authority, ORCHESTRATOR))
        replicas = ReplicaSet(
            "base", [running.address], certificates=certificates, server_name=name
        )
        (replica,) = replicas.replicas
        await until(lambda: replica.health is not HealthState.UNKNOWN)
        assert replica.health.name == health
        await replicas.close()
