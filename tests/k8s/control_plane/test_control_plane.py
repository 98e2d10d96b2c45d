"""The manifests and `muse deploy` on a real API server, where one is given; never a fake.

KUBEBUILDER_ASSETS names a folder with etcd and kube-apiserver, which are started here; KUBECONFIG
a cluster without a namespace muse, which these tests make and take away. Controllers and a
scheduler are there in the second case alone: what needs them is skipped by name in the first.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from k8s.checks.rendering import Manifest
from k8s.deployment.applying import apply_all, try_all
from k8s.deployment.cluster import Cluster, Refused
from k8s.deployment.overlays import names, open_overlay

pytestmark = pytest.mark.usefixtures("control_plane")
Rendered = Callable[[str], list[Manifest]]
PART = {"app.kubernetes.io/part-of": "muse"}
SOON_S = 60.0


def soon(found: Callable[[], Any]) -> Any:
    """Waits until something is there."""
    end = time.monotonic() + SOON_S
    while not (value := found()):
        assert time.monotonic() < end, f"not there after {SOON_S:g} s"
        time.sleep(0.5)
    return value


@pytest.fixture(scope="module")
def cluster(control_plane: str) -> Cluster:
    """The control plane."""
    return Cluster()


@pytest.fixture(scope="module")
def muse_namespace(
    cluster: Cluster, rendered: Rendered, remove: Callable[[Cluster, Manifest], None]
) -> Iterator[str]:
    """The namespaces and the policies of the cluster, with all of Muse taken away at the end."""
    if cluster.get("v1", "Namespace", None, "muse") is not None:
        pytest.fail(
            "the cluster has a namespace muse: expected one where tests may make and end it"
        )
    objects = [
        *(each for each in rendered("k8s/overlays/local-cpu") if each["kind"] == "Namespace"),
        *rendered("k8s/policies"),
    ]
    for each in objects:
        cluster.apply(each)
    yield "muse"
    for each in objects:
        remove(cluster, each)


@pytest.fixture(scope="module")
def deployed(
    cluster: Cluster,
    muse_namespace: str,
    rendered: Rendered,
    remove: Callable[[Cluster, Manifest], None],
) -> Iterator[list[Manifest]]:
    """The overlay gke-v5e, applied."""
    manifests = rendered("k8s/overlays/gke-v5e")
    tried = try_all(cluster, manifests, force=True)
    assert len(list(apply_all(cluster, manifests, tried, force=True))) == len(manifests)
    yield manifests
    for each in manifests:
        if each["kind"] == "PersistentVolume":  # the namespace takes the others with it
            remove(cluster, each)


def refusal(cluster: Cluster, manifest: Manifest) -> str:
    """Returns why an object is not admitted, or ""."""
    try:
        cluster.apply(manifest, dry_run=True, force=True)
    except Refused as error:
        return str(error)
    return ""


def pod_of(rendered: Rendered, deployment: str) -> Manifest:
    """Returns a pod as a Deployment of gke-v5e would make it."""
    (found,) = [
        each
        for each in rendered("k8s/overlays/gke-v5e")
        if (each["kind"], each["metadata"]["name"]) == ("Deployment", deployment)
    ]
    template = found["spec"]["template"]
    metadata = {**template["metadata"], "name": "tried", "namespace": "muse"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


@pytest.mark.parametrize("overlay", names())
def test_every_overlay_passes_a_dry_run_on_the_server(
    overlay: str, cluster: Cluster, muse_namespace: str
) -> None:
    manifests = open_overlay(overlay).manifests

    tried = try_all(cluster, manifests, force=True)

    assert len(tried) == len(manifests)
    assert "cannot be tried yet" not in {each.outcome for each in tried}


def test_precompute_jobs_pass_a_dry_run_on_the_server(cluster: Cluster, rendered: Rendered) -> None:
    manifests = rendered("k8s/training/precompute")

    outcomes = {each.title: each.outcome for each in try_all(cluster, manifests, force=True)}

    assert outcomes["Namespace/muse-training"] == "created"


def test_a_pod_of_ours_is_admitted_and_a_privileged_one_is_not(
    cluster: Cluster, deployed: list[Manifest], rendered: Rendered
) -> None:
    pod = pod_of(rendered, "base")
    cluster.apply(pod, dry_run=True)

    pod["spec"]["containers"][0]["securityContext"] = {"privileged": True}

    with pytest.raises(Refused, match="violates PodSecurity") as refused:
        cluster.apply(pod, dry_run=True)
    assert refused.value.status == 403


@pytest.mark.parametrize(
    "label", ["cloud.google.com/gke-tpu-topology", "cloud.google.com/gke-tpu-accelerator"]
)
def test_a_pod_with_chips_without_their_shape_is_refused_by_our_policy(
    label: str, cluster: Cluster, deployed: list[Manifest], rendered: Rendered
) -> None:
    pod = pod_of(rendered, "base")
    del pod["spec"]["nodeSelector"][label]

    # A policy holds a moment after it was made.
    assert "needs the nodeSelectors" in soon(lambda: refusal(cluster, pod))


def test_a_stage_without_a_startup_probe_is_refused_by_our_policy(
    cluster: Cluster, deployed: list[Manifest], rendered: Rendered
) -> None:
    (found,) = [
        each
        for each in rendered("k8s/overlays/gke-v5e")
        if (each["kind"], each["metadata"]["name"]) == ("Deployment", "base")
    ]
    del found["spec"]["template"]["spec"]["containers"][0]["startupProbe"]

    assert "a stage needs a startupProbe" in soon(lambda: refusal(cluster, found))


def test_budgets_and_autoscalers_are_read_back_as_they_were_written(
    cluster: Cluster, deployed: list[Manifest]
) -> None:
    looked = 0
    for each in deployed:
        if each["kind"] in ("PodDisruptionBudget", "HorizontalPodAutoscaler"):
            found = cluster.get(each["apiVersion"], each["kind"], "muse", each["metadata"]["name"])
            assert found is not None
            for name, value in each["spec"].items():
                if name != "behavior":  # to which the server adds its defaults
                    assert found["spec"][name] == value
            looked += 1
    assert looked >= 6


def test_applying_again_changes_nothing(cluster: Cluster, deployed: list[Manifest]) -> None:
    tried = try_all(cluster, deployed, force=False)

    assert {each.outcome for each in tried} == {"unchanged"}


def test_the_commands_apply_say_and_scale(
    deployed: list[Manifest], cluster: Cluster, muse: Any
) -> None:
    overlay = ("--overlay", "gke-v5e")
    ended = muse("apply", *overlay, "--no-wait", "--force-conflicts")
    assert ended.status == 0, ended
    assert "Deployment/base: unchanged" in ended.out

    ended = muse("status", *overlay)
    assert ended.status == 1  # no node has the images
    assert "superres" in ended.out

    ended = muse("scale", "base", "3", *overlay, "--no-wait")
    assert ended.status == 0, ended
    found = cluster.get("apps/v1", "Deployment", "muse", "base")
    assert found is not None
    assert found["spec"]["replicas"] == 3
    ended = muse("apply", *overlay, "--no-wait")
    assert ".spec.replicas was set by muse-scale" in ended.out
    assert muse("apply", *overlay, "--no-wait", "--force-conflicts").status == 0

    ended = muse("scale", "orchestrator", "3", *overlay)
    assert "HorizontalPodAutoscaler/orchestrator" in ended.error


def test_a_stage_is_scheduled_onto_a_node_of_its_chip_and_no_other(
    cluster: Cluster,
    deployed: list[Manifest],
    whole_cluster: None,
    remove: Callable[[Cluster, Manifest], None],
    make_ready: Callable[[Cluster, str, dict[str, str]], None],
) -> None:
    chip = {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "1x1",
        "cloud.google.com/gke-nodepool": "muse-tokenizer",
    }
    taint = {"key": "google.com/tpu", "value": "present", "effect": "NoSchedule"}
    nodes = [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {**PART, **labels}},
            "spec": {"taints": [taint]},
        }
        for name, labels in (
            ("fake-v5e", chip),
            ("fake-other", {**chip, "cloud.google.com/gke-tpu-topology": "2x2"}),
        )
    ]
    try:
        for node in nodes:
            cluster.apply(node)
            make_ready(
                cluster,
                node["metadata"]["name"],
                {"google.com/tpu": "1", "cpu": "24", "memory": "48Gi", "pods": "10"},
            )

        def places() -> list[str]:
            pods = cluster.objects(
                "v1", "Pod", "muse", labelSelector="app.kubernetes.io/name=tokenizer"
            )
            return [each["spec"]["nodeName"] for each in pods if "nodeName" in each["spec"]]

        assert soon(places) == ["fake-v5e"]
    finally:
        for node in nodes:
            remove(cluster, node)


def test_the_environment_says_which_control_plane_this_was(control_plane: str) -> None:
    assert Path(os.environ["KUBECONFIG"]).is_file()
    assert control_plane in ("KUBEBUILDER_ASSETS", "KUBECONFIG")
