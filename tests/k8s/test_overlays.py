"""Every overlay as it is deployed: valid, whole, and what the servers really take."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.checks.cross_object import mistakes
from k8s.checks.objects import Objects, environment
from k8s.checks.rendering import Manifest
from k8s.checks.schemas import schema_mistakes

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted(str(each.relative_to(ROOT)) for each in (ROOT / "k8s/overlays").iterdir())
TRAINING = ["k8s/training", "k8s/training/precompute"]
FOLDERS = [
    *(*OVERLAYS, *TRAINING, "k8s/policies"),
    *("tests/k8s/everything", "tests/k8s/adapter", "tests/k8s/tls", "tests/k8s/three-stages"),
]
ADDRESSES = ("text_encoder", "tokenizer", "base", "superres")
Rendered = Callable[[str], list[Manifest]]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_object_is_what_its_schema_says(folder: str, rendered: Rendered) -> None:
    manifests = rendered(folder)

    assert manifests
    assert schema_mistakes(manifests) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_objects_agree_with_each_other(folder: str, rendered: Rendered) -> None:
    assert mistakes(rendered(folder)) == []


@pytest.mark.parametrize("folder", OVERLAYS)
def test_every_overlay_has_the_six_services(folder: str, rendered: Rendered) -> None:
    objects = Objects(rendered(folder))
    names = {"gateway", "orchestrator", "text-encoder", "tokenizer", "base", "superres"}

    for kind in ("Deployment", "Service", "PodDisruptionBudget"):
        assert {each["metadata"]["name"] for each in objects.of(kind)} == names
    for name in names - {"gateway"}:  # whose callers open many connections
        service = objects.named("Service", name)
        assert service is not None
        assert service["spec"]["clusterIP"] == "None"


def settings_of(container: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns the settings that the server itself makes of a container's command and variables."""
    for name, value in environment(container).items():
        if name.startswith("MUSE_"):
            monkeypatch.setenv(name, "of a Secret" if value is None else value)
    python, flag, module = container["command"]
    assert (python, flag) == ("python", "-m")
    app = import_module(f"{module}.__main__").app
    _, bound, _ = app.parse_args(container.get("args", []), exit_on_error=False, print_error=False)
    return bound.arguments["settings"]


@pytest.mark.parametrize("folder", [*OVERLAYS, "tests/k8s/everything", "tests/k8s/tls"])
def test_servers_understand_their_commands_and_variables(
    folder: str, rendered: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = Objects(rendered(folder))
    ports = {
        each["metadata"]["name"]: each["spec"]["ports"][0]["port"] for each in objects.of("Service")
    }
    understood = 0
    for each in objects.workloads():
        with monkeypatch.context() as patch:
            settings = settings_of(each.pod["containers"][0], patch)
        understood += 1
        assert settings.host == ("127.0.0.1" if each.kind == "Job" else "0.0.0.0")
        encrypted = folder == "tests/k8s/tls" and each.kind == "Deployment"
        assert (settings.tls_cert is not None) == encrypted
        assert settings.port == ports[each.name.removeprefix("compile-")]
        assert settings.grace_s == 30
        assert settings.metrics_port == 9464
        if each.component == "orchestrator":
            for stage in ADDRESSES:
                service = stage.replace("_", "-")
                assert getattr(settings, stage) == f"dns:///{service}:{ports[service]}"
        elif each.component == "gateway":
            assert settings.orchestrator == f"dns:///orchestrator:{ports['orchestrator']}"
            assert (settings.orchestrator_tls is not None) == encrypted
            assert settings.api_key == ("of a Secret" if folder == "tests/k8s/everything" else "")
        else:
            assert settings.checkpoints == Path("/checkpoints")
            assert settings.compile_only == (each.component == "compile-job")
    assert understood == len(list(objects.workloads())) >= 6


def test_a_system_without_a_superres_has_nothing_of_it(
    rendered: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = rendered("tests/k8s/three-stages")
    assert [each for each in manifests if "superres" in yaml.safe_dump(each)] == []

    objects = Objects(manifests)
    whole = {each["metadata"]["name"] for each in Objects(rendered("tests/k8s/tls")).of("Service")}
    names = {each["metadata"]["name"] for each in objects.of("Service")}
    assert names == whole - {"superres"}
    (orchestrator,) = (each for each in objects.workloads() if each.name == "orchestrator")
    settings = settings_of(orchestrator.pod["containers"][0], monkeypatch)
    assert list(settings.stage_addresses) == ["text_encoder", "base", "tokenizer"]


@pytest.mark.parametrize(
    "folder", ["k8s/overlays/gke-v5e", "k8s/overlays/gke-v6e", "k8s/overlays/gpu"]
)
def test_each_stage_has_a_node_pool_of_its_own(folder: str, rendered: Rendered) -> None:
    objects = Objects(rendered(folder))
    pools = {
        each.name: each.pod["nodeSelector"]["cloud.google.com/gke-nodepool"]
        for each in objects.workloads()
        if each.kind == "Deployment" and each.component == "stage"
    }

    assert len(pools) == len(set(pools.values())) == 4


def test_ingress_and_route_lead_to_the_same_paths(rendered: Rendered) -> None:
    objects = Objects(rendered("tests/k8s/everything"))
    (ingress,), (route,) = objects.of("Ingress"), objects.of("HTTPRoute")
    kinds = {"Prefix": "PathPrefix", "Exact": "Exact"}
    paths = {
        (kinds[each["pathType"]], each["path"])
        for each in ingress["spec"]["rules"][0]["http"]["paths"]
    }
    (rule,) = route["spec"]["rules"]
    assert {(each["path"]["type"], each["path"]["value"]) for each in rule["matches"]} == paths
    assert ("Exact", "/") in paths
    assert not {"/metrics", "/healthz", "/readyz"} & {path for _, path in paths}


def test_every_component_is_rendered_somewhere() -> None:
    used = set()
    for file in [
        *ROOT.glob("k8s/*/**/kustomization.yaml"),
        *ROOT.glob("tests/k8s/*/kustomization.yaml"),
    ]:
        content = yaml.safe_load(file.read_text())
        used |= {(file.parent / path).resolve() for path in content.get("components", ())}

    assert used >= set((ROOT / "k8s/components").resolve().iterdir())
