"""The list of stages is what the servers, the stubs, the manifests and the client go by."""

from dataclasses import fields
from importlib import import_module
from pathlib import Path

import grpc
import pytest
import yaml
from muse_client import DEFAULT_ADDRESS

from services.stages import ORCHESTRATOR, ORCHESTRATOR_PORT, STAGES, Stage, service_of

BASE = Path(__file__).parents[1] / "k8s/base"
PORTS = {ORCHESTRATOR: ORCHESTRATOR_PORT} | {
    stage.deployment: stage.port for stage in STAGES.values()
}


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_a_stage_has_a_stub_with_a_status(stage: Stage) -> None:
    request = stage.status_request()
    service = request.DESCRIPTOR.file.services_by_name[service_of(stage.name)]
    method = service.methods_by_name["GetStatus"]
    assert method.input_type is request.DESCRIPTOR
    with grpc.insecure_channel(stage.address) as channel:
        assert callable(stage.stub(channel).GetStatus)


@pytest.mark.parametrize("deployment", PORTS)
def test_a_server_its_service_and_its_clients_have_one_port(deployment: str) -> None:
    server = import_module(f"services.{deployment.replace('-', '_')}.__main__")
    defaults = {field.name: field.default for field in fields(server.Settings)}
    assert defaults["port"] == PORTS[deployment]
    objects = yaml.safe_load_all((BASE / f"{deployment}.yaml").read_text())
    (service,) = (each for each in objects if each["kind"] == "Service")
    assert PORTS[deployment] in [port["port"] for port in service["spec"]["ports"]]


def test_the_client_calls_the_orchestrators_port() -> None:
    assert f"127.0.0.1:{ORCHESTRATOR_PORT}" == DEFAULT_ADDRESS


def test_every_fingerprint_that_a_stage_needs_is_given_by_the_stage_it_names() -> None:
    needs = [(stage, giver) for stage in STAGES.values() for giver in stage.needs.values()]
    assert needs
    for stage, giver in needs:
        assert STAGES[giver].gives
        assert giver != stage.name
