"""What manifests become on this machine, and what is refused in them."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.stages import NO_STAGE
from tools.local import parse_replicas, stage_flags
from tools.local.fields import ManifestError
from tools.local.folders import (
    CHECKPOINTS,
    OF_SUPERRES,
    Folders,
    check_checkpoints,
    has_superres,
)
from tools.local.manifest import OVERLAY, local_overlay, read_overlay
from tools.local.network import Network
from tools.local.placement import LocalPod, place_pods, scaled, without_superres
from tools.local.runner import forwarded_ports

Build = Callable[..., list[dict[str, Any]]]
RENDERED = Path(__file__).parents[3] / "tools/local" / OVERLAY


def test_what_is_run_is_what_is_deployed(rendered: Callable[[str], Any]) -> None:
    assert json.loads(RENDERED.read_text()) == rendered("k8s/overlays/local-cpu"), (
        "k8s/overlays/local-cpu has changed: make local-overlay"
    )


def placed(
    folder: Path, *, several: bool | None = None, **replicas: int
) -> tuple[dict[str, LocalPod], Folders]:
    folders = Folders(folder / "checkpoints", folder / "compiled", folder / "own")
    with Network(several=several) as network:
        found = place_pods(
            scaled(local_overlay(), replicas), network, folders, stage_flags(mesh="model=4")
        )
    return {each.name: each for each in found}, folders


def test_addresses_folders_and_flags_of_the_overlay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    monkeypatch.setenv("MUSE_PORT", "1")
    monkeypatch.setenv("MUSE_MAX_BATCH_SIZE", "3")
    pods, folders = placed(tmp_path, base=2)
    base, orchestrator = pods["base-1"], pods["orchestrator-0"].environment

    assert base.command == (sys.executable, "-m", "services.base", "--mesh=model=4")
    assert base.environment["MUSE_HOST"] == base.address.host
    assert base.environment["MUSE_PORT"] == "50053"
    assert base.environment["MUSE_CHECKPOINTS"] == str(folders.checkpoints)
    assert base.environment["MUSE_COMPILATION_CACHE"] == str(folders.compiled)
    assert base.environment["HOME"] == str(folders.own / "base-1/tmp")
    assert base.environment["TMPDIR"] == base.environment["HOME"]
    assert Path(base.environment["HOME"]).is_dir()
    assert base.environment["JAX_PLATFORMS"] == "cuda,cpu"  # the caller's
    assert base.environment["MUSE_MAX_BATCH_SIZE"] == "3"
    two = [pods[f"base-{index}"].address.endpoint(50053) for index in range(2)]
    assert orchestrator["MUSE_BASE"] == ",".join(two)
    assert orchestrator["MUSE_TOKENIZER"] == pods["tokenizer-0"].address.endpoint(50052)
    orchestrators = pods["orchestrator-0"].address.endpoint(50050)
    assert pods["gateway-0"].environment["MUSE_ORCHESTRATOR"] == orchestrators
    assert len({pod.address.host for pod in pods.values()}) == 7
    assert (base.deployment.pre_stop_s, base.deployment.grace_s) == (5, 60)


def test_with_one_address_every_port_is_another(tmp_path: Path) -> None:
    pods, _ = placed(tmp_path, several=False, base=2)
    ports = [port for pod in pods.values() for port in pod.address.ports.values()]

    assert {pod.address.host for pod in pods.values()} == {"127.0.0.1"}
    assert len(set(ports)) == len(ports) == 14
    base = pods["base-1"]
    assert base.environment["MUSE_PORT"] == str(base.address.ports[50053])
    assert base.environment["MUSE_METRICS_PORT"] == str(base.address.ports[9464])
    assert base.address.endpoint(50053) in pods["orchestrator-0"].environment["MUSE_BASE"]


def test_two_stacks_have_no_place_in_common() -> None:
    with Network() as first, Network() as second:
        places = [network.allocate([50053]) for network in (first, second, first)]
    assert len({place.endpoint(50053) for place in places}) == 3


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("0.kind", "StatefulSet", "StatefulSet/orchestrator: kind: expected one of"),
        ("0.spec.paused", True, "Deployment/orchestrator: spec.paused: the local runner does not"),
        ("POD.hostNetwork", True, "spec.template.spec.hostNetwork: the local runner does not"),
        ("POD.initContainers", [{"name": "a"}], "spec.initContainers[0].name: the local runner"),
        ("C.lifecycle", {"postStart": {"sleep": {"seconds": 1}}}, "lifecycle.postStart.sleep.sec"),
        (
            "C.readinessProbe",
            {"tcpSocket": {"port": 1}},
            "readinessProbe.tcpSocket.port: the local",
        ),
        ("C.readinessProbe", {"periodSeconds": 1}, "readinessProbe: expected a probe by grpc or h"),
        ("C.readinessProbe", {"httpGet": {"port": 7}}, "httpGet.port: 7 is none of the container"),
        ("C.livenessProbe.grpc.port", 7, "grpc.port: 7 is none of the container's [50050]"),
        ("C.command", [], "containers[0].command: expected one: here no image says what to run"),
        (
            "C.ports",
            [{"containerPort": 50050, "name": "grpc"}, {"containerPort": 50050}],
            "containers[0].ports[1]: 50050 is there twice",
        ),
        ("C.volumeMounts", [{"name": "a", "mountPath": "/a"}], "volumeMounts[0].name: no volume"),
        ("POD.containers", [], "containers: expected one, got 0"),
        ("1.spec.selector", {"a": "b"}, "Service/orchestrator: spec.selector: no Deployment's"),
        ("1.spec.ports", [{"port": 1, "targetPort": "web"}], "spec.ports: 1 goes to 'web', which"),
        ("1.spec.type", "LoadBalancer", "Service/orchestrator: spec.type: the local runner"),
        ("C.env", [{"name": "A", "value": "dns:///base:50053"}], "A: no Service 'base' for"),
        ("C.env", [{"name": "A", "value": "dns:///orchestrator:1"}], "its Service has [50050]"),
        (
            "C.env",
            [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}],
            "A: the field 'status.hostIP' is none of",
        ),
        (
            "C.env",
            [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}],
            "env[0].valueFrom.secretKeyRef.name: the local runner does not understand",
        ),
    ],
)
def test_what_is_not_understood_is_an_error_with_its_path(
    manifests: Build, tmp_path: Path, path: str, value: Any, said: str
) -> None:
    objects: Any = manifests()
    path = path.replace("C.", "POD.containers.0.").replace("POD", "0.spec.template.spec")
    *parts, last = path.split(".")
    at = objects
    for part in parts:
        at = at[int(part)] if part.isdigit() else at[part]
    at[last] = value
    with pytest.raises(ManifestError) as refused, Network() as network:
        place_pods(read_overlay(objects), network, Folders(tmp_path, tmp_path, tmp_path / "own"))
    assert said in str(refused.value)


def test_a_claim_without_a_folder_is_an_error(manifests: Build, tmp_path: Path) -> None:
    objects = manifests()
    pod = objects[0]["spec"]["template"]["spec"]
    pod["volumes"] = [{"name": "a", "persistentVolumeClaim": {"claimName": "other"}}]
    pod["containers"][0]["volumeMounts"] = [{"name": "a", "mountPath": "/a"}]
    with (
        pytest.raises(ManifestError, match="claim 'other' is none of"),
        Network() as network,
    ):
        place_pods(read_overlay(objects), network, Folders(tmp_path, tmp_path, tmp_path / "own"))


def test_fields_of_the_pod_and_variables_are_resolved(manifests: Build, tmp_path: Path) -> None:
    objects = manifests()
    objects[0]["spec"]["template"]["spec"]["containers"][0]["env"] += [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "BOTH", "value": "k8s.pod.name=$(POD_NAME),ip=$(POD_IP),$(NONE)"},
    ]
    with Network() as network:
        (pod,) = place_pods(
            read_overlay(objects), network, Folders(tmp_path, tmp_path, tmp_path / "own")
        )
    host = pod.address.host
    assert pod.environment["BOTH"] == f"k8s.pod.name=orchestrator-0,ip={host},$(NONE)"


def test_without_a_checkpoint_of_every_stage_nothing_is_started(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoints in "):
        check_checkpoints(tmp_path)
    for place in CHECKPOINTS:
        (tmp_path / place).mkdir(parents=True)
        if place not in ("tokenizer/high", "base"):
            (tmp_path / place / "config.json").write_text("{}")
    with pytest.raises(
        FileNotFoundError, match=r"no checkpoint of \['base', 'tokenizer/high'\] in"
    ):
        check_checkpoints(tmp_path)


@pytest.mark.parametrize("missing", OF_SUPERRES)
def test_only_a_folder_with_nothing_of_superres_does_without_it(
    tmp_path: Path, missing: str
) -> None:
    for place in set(CHECKPOINTS) - {missing}:
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "config.json").write_text("{}")
    assert has_superres(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"no checkpoint of \['{missing}'\] in"):
        check_checkpoints(tmp_path)
    (other,) = set(OF_SUPERRES) - {missing}
    shutil.rmtree(tmp_path / other)
    assert not has_superres(tmp_path)
    check_checkpoints(tmp_path)
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of \['base'\] in"):
        check_checkpoints(tmp_path)


def test_without_a_superres_the_orchestrator_calls_none(tmp_path: Path) -> None:
    overlay = without_superres(local_overlay())
    names = ["orchestrator", "text-encoder", "tokenizer", "base", "gateway"]
    assert sorted(each.name for each in overlay.deployments) == sorted(names)
    assert sorted(each.name for each in overlay.services) == sorted(names)
    folders = Folders(tmp_path / "checkpoints", tmp_path / "compiled", tmp_path / "own")
    with Network() as network:
        pods = {each.name: each for each in place_pods(overlay, network, folders)}
    assert pods["orchestrator-0"].environment["MUSE_SUPERRES"] == NO_STAGE
    assert pods["orchestrator-0"].environment["MUSE_BASE"].endswith(":50053")
    assert "MUSE_SUPERRES" not in pods["base-0"].environment
    with pytest.raises(ValueError, match=r"replicas: expected one of .*, got 'superres'"):
        scaled(overlay, {"superres": 2})


def test_ports_follow_the_base_port() -> None:
    overlay = local_overlay()
    names = {port: service.name for port, (service, _) in forwarded_ports(overlay, 60000).items()}
    stages = ("orchestrator", "text-encoder", "tokenizer", "base", "superres")
    assert names == {60000 + offset: name for offset, name in enumerate(stages)}
    for wrong in (0, -1, 65532):
        with pytest.raises(ValueError, match=f"expected 1 to 65531, got {wrong}"):
            forwarded_ports(overlay, wrong)


def test_the_gateways_port_is_its_own() -> None:
    overlay = local_overlay()
    ports = forwarded_ports(overlay, 60000, 8080)
    service, port = ports[8080]
    assert (service.name, port, len(ports)) == ("gateway", 8080, 6)
    for wrong in (0, 65536, 60004):
        with pytest.raises(ValueError, match=f"^gateway_port: expected 1 to 65535.*got {wrong}"):
            forwarded_ports(overlay, 60000, wrong)


def test_numbers_of_pods() -> None:
    assert parse_replicas(["base=3", "text_encoder=2"]) == {"base": 3, "text-encoder": 2}
    for wrong in ("base", "base=", "base=0", "=2", "base=-1", "base=65", "base=²"):
        with pytest.raises(ValueError, match="replicas: expected NAME=N, such as base=3"):
            parse_replicas([wrong])
    with pytest.raises(ValueError, match=r"replicas: expected one of \['base', .* got 'decoder'"):
        scaled(local_overlay(), {"decoder": 2})
    assert stage_flags() == {}
    assert stage_flags(mesh="model=4", weights="int8") == {
        "text-encoder": ["--weights=int8"],
        "base": ["--weights=int8", "--mesh=model=4"],
        "superres": ["--weights=int8", "--mesh=model=4"],
    }
    stages = ("text-encoder", "tokenizer", "base", "superres")
    assert stage_flags(rows=4) == {"base": ["--rows=4"], "superres": ["--rows=4"]}
    assert stage_flags(precision="float32") == {stage: ["--precision=float32"] for stage in stages}
