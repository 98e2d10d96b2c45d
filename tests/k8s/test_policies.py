"""The admission policies' expressions, evaluated on pods as the API server would see them."""

from collections.abc import Callable
from typing import Any

import celpy
import pytest

from k8s.checks.objects import Objects
from k8s.checks.rendering import Manifest

Rendered = Callable[[str], list[Manifest]]
V5E = "k8s/overlays/gke-v5e"


def value(expression: str, **names: Any) -> Any:
    environment = celpy.Environment()
    program = environment.program(environment.compile(expression))
    return program.evaluate({name: celpy.json_to_cel(each) for name, each in names.items()})


def refusals(rendered: Rendered, policy: str, admitted: Manifest) -> list[str]:
    """Returns the messages with which a policy refuses an object."""
    found = Objects(rendered("k8s/policies")).named("ValidatingAdmissionPolicy", policy)
    assert found is not None
    spec = found["spec"]
    variables = {
        each["name"]: bool(value(each["expression"], object=admitted))
        for each in spec.get("variables", ())
    }
    return [
        each["message"]
        for each in spec["validations"]
        if not value(each["expression"], object=admitted, variables=variables)
    ]


def pod_of(rendered: Rendered, folder: str, name: str) -> Manifest:
    deployment = Objects(rendered(folder)).named("Deployment", name)
    assert deployment is not None
    return {"spec": deployment["spec"]["template"]["spec"]}


@pytest.mark.parametrize("folder", [V5E, "k8s/overlays/gke-v6e", "k8s/overlays/local-cpu"])
def test_our_own_pods_and_deployments_are_admitted(folder: str, rendered: Rendered) -> None:
    objects = Objects(rendered(folder))
    for each in objects.workloads():
        assert refusals(rendered, "muse-tpu-topology", {"spec": dict(each.pod)}) == []
    for deployment in objects.of("Deployment"):
        if deployment["metadata"]["labels"]["app.kubernetes.io/component"] == "stage":
            assert refusals(rendered, "muse-startup-probe", deployment) == []


@pytest.mark.parametrize(
    "label", ["cloud.google.com/gke-tpu-topology", "cloud.google.com/gke-tpu-accelerator"]
)
def test_a_pod_with_chips_and_half_of_their_shape_is_refused(
    label: str, rendered: Rendered
) -> None:
    pod = pod_of(rendered, V5E, "base")
    del pod["spec"]["nodeSelector"][label]

    (message,) = refusals(rendered, "muse-tpu-topology", pod)
    assert label in message


def test_a_pod_with_chips_and_no_selector_at_all_is_refused(rendered: Rendered) -> None:
    pod = pod_of(rendered, V5E, "base")
    del pod["spec"]["nodeSelector"]

    assert len(refusals(rendered, "muse-tpu-topology", pod)) == 1


def test_a_stage_without_a_startup_probe_is_refused(rendered: Rendered) -> None:
    deployment = Objects(rendered(V5E)).named("Deployment", "base")
    assert deployment is not None
    del deployment["spec"]["template"]["spec"]["containers"][0]["startupProbe"]

    (message,) = refusals(rendered, "muse-startup-probe", deployment)
    assert "startupProbe" in message


def test_each_policy_is_bound_and_its_namespaces_are_ours(rendered: Rendered) -> None:
    objects = Objects(rendered("k8s/policies"))
    bound = {each["spec"]["policyName"] for each in objects.of("ValidatingAdmissionPolicyBinding")}

    assert bound == {each["metadata"]["name"] for each in objects.of("ValidatingAdmissionPolicy")}
