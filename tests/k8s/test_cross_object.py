"""Mistakes that no schema sees, seeded one by one into a good overlay: each must be named."""

from collections.abc import Callable
from typing import Any

import pytest

from k8s.checks.__main__ import main
from k8s.checks.cross_object import mistakes
from k8s.checks.objects import Objects
from k8s.checks.rendering import Manifest
from tests.k8s.sown import Sown

Seed = Callable[[Sown], None]


def relabel(sown: Sown) -> None:
    sown.spec("Deployment", "base")["template"]["metadata"]["labels"]["app.kubernetes.io/name"] = (
        "bas"
    )


def second_budget_field(sown: Sown) -> None:
    sown.spec("PodDisruptionBudget", "base")["minAvailable"] = 1


def budget_that_holds_every_pod(sown: Sown) -> None:
    budget = sown.spec("PodDisruptionBudget", "superres")
    del budget["maxUnavailable"]
    budget["minAvailable"] = sown.spec("Deployment", "superres")["replicas"]


def open_to_all(sown: Sown) -> None:
    rule = sown.spec("NetworkPolicy", "orchestrator-to-base")["ingress"][0]
    rule["from"] = [{"podSelector": {}}]
    sown.also(
        "NetworkPolicy",
        "orchestrator-to-stages",
        metadata={"name": "another", "namespace": "muse"},
        spec={
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"podSelector": {}}]}],
        },
    )


def no_token(sown: Sown) -> None:
    volume = next(
        each for each in sown.pod("orchestrator")["volumes"] if each["name"] == "api-access"
    )
    volume["projected"]["sources"] = [
        source for source in volume["projected"]["sources"] if "serviceAccountToken" not in source
    ]


SEEDS: dict[str, tuple[Seed, str]] = {
    "a selector that misses its own pods": (
        relabel,
        "Deployment/base: its selector does not select its own pods' labels",
    ),
    "a service that selects no pod": (
        lambda sown: sown.spec("Service", "base")["selector"].update(tier="gold"),
        "Service/base: selects no pods",
    ),
    "a target port that no container has": (
        lambda sown: sown.spec("Service", "base")["ports"][0].update(targetPort="http"),
        "Service/base: Deployment/base has no port 'http'",
    ),
    "a headless service that maps ports": (
        lambda sown: sown.spec("Service", "base")["ports"][0].update(port=80),
        "Service/base: is headless, so callers reach port 80 of the pod itself",
    ),
    "a port name of more than 15 characters": (
        lambda sown: sown.box("base")["ports"][0].update(name="grpc-base-transformer"),
        "Deployment/base: port name 'grpc-base-transformer' has more than 15 characters",
    ),
    "a mount without a volume": (
        lambda sown: sown.mount("base", "tmp").update(name="temporary"),
        "Deployment/base: mounts 'temporary', which is not among its volumes",
    ),
    "a volume without a claim": (
        lambda sown: sown.without("PersistentVolumeClaim", "compiled"),
        "Deployment/base: there is no PersistentVolumeClaim 'compiled'",
    ),
    "a claim without a volume": (
        lambda sown: sown.spec("PersistentVolumeClaim", "checkpoints").update(volumeName="weights"),
        "PersistentVolumeClaim/checkpoints: there is no PersistentVolume 'weights'",
    ),
    "a claim larger than its volume": (
        lambda sown: sown.spec("PersistentVolume", "muse-checkpoints").update(
            capacity={"storage": "1Gi"}
        ),
        "PersistentVolumeClaim/checkpoints: asks for more storage than",
    ),
    "a volume kept for another claim": (
        lambda sown: sown.spec("PersistentVolume", "muse-compiled")["claimRef"].update(
            namespace="default"
        ),
        "PersistentVolume/muse-compiled: is kept for {'name': 'compiled', 'namespace': 'default'}",
    ),
    "both fields of a budget": (
        second_budget_field,
        "PodDisruptionBudget/base: has both minAvailable and maxUnavailable",
    ),
    "a budget that can never be kept": (
        budget_that_holds_every_pod,
        "PodDisruptionBudget/superres: minAvailable 2 of 2 replicas: no pod could ever be evicted",
    ),
    "a deployment without a budget": (
        lambda sown: sown.without("PodDisruptionBudget", "tokenizer"),
        "Deployment/tokenizer: has no PodDisruptionBudget",
    ),
    "requests unlike limits": (
        lambda sown: sown.box("base")["resources"]["limits"].update(memory="32Gi"),
        "Deployment/base: memory requests 16Gi and limits 32Gi, expected the same",
    ),
    "chips in the limits alone": (
        lambda sown: sown.box("base")["resources"]["requests"].pop("google.com/tpu"),
        "Deployment/base: google.com/tpu requests None and limits 1, expected the same",
    ),
    "no request of cpu": (
        lambda sown: sown.box("base")["resources"]["requests"].pop("cpu"),
        "Deployment/base: says no request of cpu",
    ),
    "an account that is not there": (
        lambda sown: sown.without("ServiceAccount", "base"),
        "Deployment/base: there is no ServiceAccount 'base'",
    ),
    "a binding to a role that is not there": (
        lambda sown: sown.without("Role", "orchestrator"),
        "RoleBinding/orchestrator: there is no Role 'orchestrator'",
    ),
    "a binding of another namespace's account": (
        lambda sown: (
            Objects(sown.manifests).of("RoleBinding")[0]["subjects"][0].update(namespace="default")
        ),
        "RoleBinding/orchestrator: names an account of namespace 'default', expected 'muse'",
    ),
    "a role without a token": (
        no_token,
        "Deployment/orchestrator: its account 'orchestrator' has a role, but the pod has no token",
    ),
    "a token without a role": (
        lambda sown: sown.without("RoleBinding", "orchestrator"),
        "Deployment/orchestrator: has a token, but no RoleBinding names its account 'orchestrator'",
    ),
    "an address that names no service": (
        lambda sown: sown.variable("orchestrator", "MUSE_BASE").update(value="dns:///bass:50053"),
        "Deployment/orchestrator: MUSE_BASE names the Service 'bass', which is not there",
    ),
    "an address with another's port": (
        lambda sown: sown.variable("orchestrator", "MUSE_BASE").update(value="dns:///base:50054"),
        "Deployment/orchestrator: MUSE_BASE names port 50054 of the Service 'base'",
    ),
    "replicas that an autoscaler sets": (
        lambda sown: sown.spec("Deployment", "orchestrator").update(replicas=3),
        "Deployment/orchestrator: says replicas, which HorizontalPodAutoscaler/orchestrator sets",
    ),
    "two autoscalers of one deployment": (
        lambda sown: sown.also(
            "HorizontalPodAutoscaler",
            "orchestrator",
            metadata={"name": "second", "namespace": "muse"},
        ),
        "Deployment/orchestrator: has 2 autoscalers",
    ),
    "an autoscaler that watches another container": (
        lambda sown: sown.spec("HorizontalPodAutoscaler", "orchestrator")["metrics"][0][
            "containerResource"
        ].update(container="main"),
        "HorizontalPodAutoscaler/orchestrator: Deployment/orchestrator has no container 'main'",
    ),
    "an object in another namespace": (
        lambda sown: sown.manifests[-1]["metadata"].update(namespace="default"),
        "is in namespace 'default', expected one of ['muse']",
    ),
    "the same object twice": (
        lambda sown: sown.also("Service", "base"),
        "Service/base: is there 2 times",
    ),
    "service links": (
        lambda sown: sown.pod("orchestrator").pop("enableServiceLinks"),
        "Deployment/orchestrator: expected enableServiceLinks: false",
    ),
    "a root that can be written": (
        lambda sown: sown.box("base")["securityContext"].update(readOnlyRootFilesystem=False),
        "Deployment/base: expected readOnlyRootFilesystem: true",
    ),
    "the root user": (
        lambda sown: sown.pod("base")["securityContext"].update(runAsUser=0),
        "Deployment/base: expected runAsNonRoot and user 65532",
    ),
    "an ingress to a service that is not there": (
        lambda sown: sown.backend().update(name="getaway"),
        "Ingress/gateway: there is no Service 'getaway'",
    ),
    "an ingress to a port that is not there": (
        lambda sown: sown.backend().update(port={"name": "https"}),
        "Ingress/gateway: Service/gateway has no port 'https'",
    ),
    "a gateway that asks for readiness where it means liveness": (
        lambda sown: sown.box("gateway")["livenessProbe"]["httpGet"].update(path="/readyz"),
        "Deployment/gateway: its livenessProbe asks for '/readyz', expected /healthz",
    ),
    "a gateway that is probed by gRPC": (
        lambda sown: sown.box("gateway").update(readinessProbe={"grpc": {"port": 8080}}),
        "Deployment/gateway: has no readinessProbe by httpGet",
    ),
    "a gateway that may not call": (
        lambda sown: sown.spec("NetworkPolicy", "gateway").update(egress=[]),
        "Deployment/gateway may not call Deployment/orchestrator at port 50050, and has to",
    ),
    "a gateway that may call a stage": (
        lambda sown: [
            sown.spec("NetworkPolicy", "gateway").update(egress=[{}]),
            sown.spec("NetworkPolicy", "orchestrator-to-base").update(ingress=[{}]),
        ],
        "Deployment/gateway may call Deployment/base at port 50053, and never does",
    ),
    "a probe of a port that is not served": (
        lambda sown: sown.box("base")["readinessProbe"]["grpc"].update(port=50054),
        "Deployment/base: its readinessProbe asks port 50054, which it has not",
    ),
    "a liveness probe that asks for readiness": (
        lambda sown: sown.box("base")["livenessProbe"]["grpc"].update(service="readiness"),
        "Deployment/base: its livenessProbe asks for 'readiness', expected liveness",
    ),
    "a stage without a startup probe": (
        lambda sown: sown.box("base").pop("startupProbe"),
        "Deployment/base: has no startupProbe",
    ),
    "a startup probe that gives up while it compiles": (
        lambda sown: sown.box("base")["startupProbe"].update(failureThreshold=30),
        "Deployment/base: its startupProbe allows 150 s, expected at least 900",
    ),
    "a roll-out that gives up while it compiles": (
        lambda sown: sown.spec("Deployment", "base").pop("progressDeadlineSeconds"),
        "Deployment/base: its progressDeadlineSeconds must be above the 900 s of its startupProbe",
    ),
    "a drain that the kubelet cuts short": (
        lambda sown: sown.variable("base", "MUSE_GRACE_S").update(value="50"),
        "Deployment/base: preStop 5 s + drain 50 s + 10 s is more than",
    ),
    "no time for clients to learn": (
        lambda sown: sown.box("base").pop("lifecycle"),
        "Deployment/base: has no preStop sleep",
    ),
    "a server that may write programs": (
        lambda sown: sown.mount("base", "compiled").update(readOnly=False),
        "Deployment/base: may write to 'compiled', expected readOnly: true",
    ),
    "a job that compiles for other settings": (
        lambda sown: sown.box("text-encoder")["env"].append(
            {"name": "MUSE_MAX_BATCH_SIZE", "value": "4"}
        ),
        "Job/compile-text-encoder: another image or other settings than Deployment/text-encoder",
    ),
    "a job that compiles on another chip": (
        lambda sown: sown.pod("compile-base", "Job")["nodeSelector"].update(
            {"cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice"}
        ),
        "Job/compile-base: another node than Deployment/base",
    ),
    "chips without their shape": (
        lambda sown: sown.pod("base")["nodeSelector"].pop("cloud.google.com/gke-tpu-topology"),
        "Deployment/base: asks for google.com/tpu without the nodeSelector",
    ),
    "more chips than the shape has": (
        lambda sown: [
            sown.box("base")["resources"][side].update({"google.com/tpu": "4"})
            for side in ("requests", "limits")
        ],
        "Deployment/base: asks for 4 chips, its shape 1x1 has another number",
    ),
    "a shape that is none": (
        lambda sown: sown.pod("base")["nodeSelector"].update(
            {"cloud.google.com/gke-tpu-topology": "one"}
        ),
        "Deployment/base: its shape is 'one', expected one such as 1x1 or 2x2",
    ),
    "a mesh of more chips than there are": (
        lambda sown: sown.box("base")["env"].append({"name": "MUSE_MESH", "value": "model=4"}),
        "Deployment/base: asks for 1 chips and uses 4, by its MUSE_MESH",
    ),
    "a taint that is not tolerated": (
        lambda sown: sown.pod("base").pop("tolerations"),
        "Deployment/base: asks for google.com/tpu and does not tolerate its taint",
    ),
    "a pod larger than its node": (
        lambda sown: [
            sown.box("base")["resources"][side].update(memory="64Gi")
            for side in ("requests", "limits")
        ],
        "Deployment/base: asks for 6.87e+10 of memory, a ct5lp-hightpu-1t has",
    ),
    "a surge that waits for a chip": (
        lambda sown: sown.spec("Deployment", "base").pop("strategy"),
        "Deployment/base: maxSurge is 25%, expected 0",
    ),
    "a chip that may go unused": (
        lambda sown: sown.variable("base", "JAX_PLATFORMS").update(value=""),
        "Deployment/base: asks for google.com/tpu, expected JAX_PLATFORMS to name tpu",
    ),
    "a variable that the server does not know": (
        lambda sown: sown.variable("base", "MUSE_GRACE_S").update(name="MUSE_GRACE"),
        "Deployment/base: services.base has no setting MUSE_GRACE",
    ),
    "a server with another port": (
        lambda sown: sown.variable("base", "MUSE_PORT").update(value="50060"),
        "Deployment/base: listens on MUSE_PORT 50060, which is not among its ports",
    ),
    "an image without a version": (
        lambda sown: sown.box("base").update(image="example.invalid/muse/muse-base"),
        "Deployment/base: image 'example.invalid/muse/muse-base' has no version",
    ),
    "stages that may call each other": (
        open_to_all,
        "Deployment/superres may call Deployment/base at port 50053, and never does",
    ),
    "a stage that no pod may call": (
        lambda sown: sown.without("NetworkPolicy", "orchestrator-to-base"),
        "Deployment/orchestrator may not call Deployment/base at port 50053, and has to",
    ),
    "a pod that no policy governs": (
        lambda sown: sown.without("NetworkPolicy", "default-deny"),
        "Job/compile-base: no NetworkPolicy governs its ingress",
    ),
    "a policy that misspells a label": (
        lambda sown: sown.spec("NetworkPolicy", "otlp").update(
            podSelector={"matchLabels": {"app.kubernetes.io/component": "stages"}}
        ),
        "NetworkPolicy/otlp: governs no pods",
    ),
}


@pytest.mark.parametrize("name", SEEDS)
def test_a_seeded_mistake_is_named(name: str, rendered: Callable[[str], list[Manifest]]) -> None:
    sown = Sown(rendered("k8s/overlays/gke-v5e"))
    seed, message = SEEDS[name]
    assert mistakes(sown.manifests) == []

    seed(sown)

    found = mistakes(sown.manifests)
    assert any(message in line for line in found), found


def test_more_gpus_than_a_node_of_the_pool_has_are_named(
    rendered: Callable[[str], list[Manifest]],
) -> None:
    sown = Sown(rendered("k8s/overlays/gpu"))
    assert mistakes(sown.manifests) == []

    for side in ("requests", "limits"):
        sown.box("base")["resources"][side]["nvidia.com/gpu"] = "2"

    message = "Deployment/base: asks for 2 nvidia.com/gpu, a node with nvidia-l4 has 1"
    assert message in mistakes(sown.manifests)


def test_an_overlay_that_asks_for_more_chips_than_its_pools_shape_fails_the_check(
    rendered: Callable[[str], list[Manifest]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = "tests/k8s/too-many-chips"

    assert main([folder]) == 1

    message = "Deployment/base: asks for 4 chips, its shape 1x1 has another number"
    assert message in capsys.readouterr().out
    assert message in mistakes(rendered(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "getaway"}, "HTTPRoute/gateway: there is no Service 'getaway'"),
        ({"port": 80}, "HTTPRoute/gateway: Service/gateway has no port 80"),
    ],
)
def test_a_route_to_what_is_not_there_is_named(
    change: dict[str, Any], message: str, rendered: Callable[[str], list[Manifest]]
) -> None:
    sown = Sown(rendered("tests/k8s/everything"))
    sown.spec("HTTPRoute", "gateway")["rules"][0]["backendRefs"][0].update(change)
    assert mistakes(sown.manifests) == [message]
