"""The manifests, `muse deploy` and kubectl's commands on a real API server, never on a fake.

KUBEBUILDER_ASSETS names a folder with etcd and kube-apiserver, which are started here; KUBECONFIG
names a cluster without a namespace muse, which these tests create and delete. Tests that need
controllers and a scheduler are skipped by name where kube-controller-manager and kube-scheduler are
not in that folder. No container runs: tests/k8s/control_plane/kubelets.py reports in its place.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from k8s.checks.rendering import Manifest
from k8s.deployment.cluster import Cluster
from k8s.deployment.overlays import OVERLAYS, names
from services.orchestrator.replicas.addresses import ServiceName
from services.orchestrator.replicas.kubernetes_watch import KubernetesWatch
from tests.k8s.conftest import Muse
from tests.k8s.control_plane.kubectl import KubectlFailed, apply, delete, evict, kubectl
from tests.k8s.control_plane.kubelets import Kubelets
from tests.waiting import until, wait_until

pytestmark = pytest.mark.usefixtures("control_plane")
Rendered = Callable[[str], list[Manifest]]
CHIP = "google.com/tpu"
TAINT = {"key": CHIP, "value": "present", "effect": "NoSchedule"}
SOON_S = 60.0


def apply_overlay(*options: str) -> str:
    """Applies the overlay gke-v5e as k8s/README.md does."""
    words = ("apply", "--server-side", "--force-conflicts", "-k", str(OVERLAYS / "gke-v5e"))
    return kubectl(*words, *options)


def wait_for_roll_out() -> None:
    """Waits for all Deployments as k8s/README.md does."""
    kubectl("-n", "muse", "rollout", "status", "deployment", "--timeout=60s")


@pytest.fixture(scope="module")
def cluster(control_plane: str) -> Cluster:
    """The control plane."""
    return Cluster()


@pytest.fixture(scope="module")
def muse_namespace(cluster: Cluster, rendered: Rendered) -> Iterator[str]:
    """The namespaces and the policies of the cluster, with all of Muse taken away at the end."""
    namespaces = cluster.objects("v1", "Namespace")
    if "muse" in {each["metadata"]["name"] for each in namespaces}:
        pytest.fail(
            "the cluster has a namespace muse: expected one where tests may make and end it"
        )
    objects = [
        *(each for each in rendered("k8s/overlays/local-cpu") if each["kind"] == "Namespace"),
        *rendered("k8s/policies"),
    ]
    for each in objects:
        apply(each)
    yield "muse"
    for each in objects:
        delete(each)


@pytest.fixture(scope="module")
def deployed(cluster: Cluster, muse_namespace: str, rendered: Rendered) -> Iterator[list[Manifest]]:
    """The overlay gke-v5e, applied."""
    manifests = rendered("k8s/overlays/gke-v5e")
    apply_overlay()
    yield manifests
    for each in manifests:
        if each["kind"] == "PersistentVolume":  # the namespace takes the others with it
            delete(each)


@pytest.fixture
def kubelets(cluster: Cluster, deployed: list[Manifest], whole_cluster: None) -> Iterator[Kubelets]:
    """What would run pods, without a node yet."""
    played = Kubelets(cluster, "muse")
    yield played
    played.close()


@pytest.fixture
def pools(kubelets: Kubelets, deployed: list[Manifest]) -> Kubelets:
    """A node of every pool that gke-v5e asks for, with eight chips, and one without."""
    for each in deployed:
        if each["kind"] == "Deployment":
            labels = each["spec"]["template"]["spec"].get("nodeSelector", {})
            has, taints = ({CHIP: "8"}, [TAINT]) if labels else ({}, [])
            kubelets.add(f"fake-{each['metadata']['name']}", labels, has, taints)
    return kubelets


def refusal(manifest: Manifest) -> str:
    """Returns why an object is not admitted, or ""."""
    try:
        apply(manifest, dry_run=True)
    except KubectlFailed as error:
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
    folder = str(OVERLAYS / overlay)
    words = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-k", folder)

    assert "deployment.apps/base" in kubectl(*words)


def test_precompute_jobs_pass_a_dry_run_on_the_server(cluster: Cluster, rendered: Rendered) -> None:
    manifests = rendered("k8s/training/precompute")
    for each in manifests:
        if each["kind"] == "Namespace":  # the others cannot be tried without it
            apply(each)

    assert [refusal(each) for each in manifests] == [""] * len(manifests)


def test_a_pod_of_ours_is_admitted_and_a_privileged_one_is_not(
    cluster: Cluster, deployed: list[Manifest], rendered: Rendered
) -> None:
    pod = pod_of(rendered, "base")
    assert refusal(pod) == ""

    pod["spec"]["containers"][0]["securityContext"] = {"privileged": True}

    assert "violates PodSecurity" in refusal(pod)


@pytest.mark.parametrize(
    "label", ["cloud.google.com/gke-tpu-topology", "cloud.google.com/gke-tpu-accelerator"]
)
def test_a_pod_with_chips_without_their_shape_is_refused_by_our_policy(
    label: str, cluster: Cluster, deployed: list[Manifest], rendered: Rendered
) -> None:
    pod = pod_of(rendered, "base")
    del pod["spec"]["nodeSelector"][label]

    # A policy holds a moment after it was made.
    assert "needs the nodeSelectors" in wait_until(lambda: refusal(pod), SOON_S)


def test_a_stage_without_a_startup_probe_is_refused_by_our_policy(
    cluster: Cluster, deployed: list[Manifest], rendered: Rendered
) -> None:
    (found,) = [
        each
        for each in rendered("k8s/overlays/gke-v5e")
        if (each["kind"], each["metadata"]["name"]) == ("Deployment", "base")
    ]
    del found["spec"]["template"]["spec"]["containers"][0]["startupProbe"]

    assert "a stage needs a startupProbe" in wait_until(lambda: refusal(found), SOON_S)


def test_budgets_and_autoscalers_are_read_back_as_they_were_written(
    cluster: Cluster, deployed: list[Manifest]
) -> None:
    looked = 0
    for each in deployed:
        if each["kind"] in ("PodDisruptionBudget", "HorizontalPodAutoscaler"):
            (found,) = [
                other
                for other in cluster.objects(each["apiVersion"], each["kind"], "muse")
                if other["metadata"]["name"] == each["metadata"]["name"]
            ]
            for name, value in each["spec"].items():
                if name != "behavior":  # to which the server adds its defaults
                    assert found["spec"][name] == value
            looked += 1
    assert looked >= 6


def test_applying_again_changes_nothing(cluster: Cluster, deployed: list[Manifest]) -> None:
    def generations() -> dict[str, int]:
        found = cluster.objects("apps/v1", "Deployment", "muse")
        return {each["metadata"]["name"]: each["metadata"]["generation"] for each in found}

    before = generations()

    apply_overlay()

    assert generations() == before
    assert len(before) == 6


def test_the_commands_explain_check_and_scale(
    deployed: list[Manifest], cluster: Cluster, muse: Muse
) -> None:
    ended = muse("explain", "--overlay", "gke-v5e")
    assert ended.status == 1  # no node has the images
    assert "deployment superres: " in ended.out

    ended = muse("check", "--overlay", "gke-v5e", "--context", cluster.context)
    assert ended.status == 1  # no node has a chip
    assert "Deployment/base: no node has " in ended.out

    kubectl("-n", "muse", "scale", "deployment", "base", "--replicas=3")
    assert deployment(cluster, "base")["spec"]["replicas"] == 3
    apply_overlay()
    assert deployment(cluster, "base")["spec"]["replicas"] == 2


def deployment(cluster: Cluster, name: str) -> Manifest:
    """Returns a Deployment of the namespace muse."""
    found = cluster.objects("apps/v1", "Deployment", "muse")
    return next(each for each in found if each["metadata"]["name"] == name)


def token_of(account: str) -> str:
    """Returns a token of a ServiceAccount, as kubelet requests one."""
    return kubectl("-n", "muse", "create", "token", account).strip()


def pods(cluster: Cluster, service: str) -> list[Manifest]:
    """Returns the pods of a service."""
    return cluster.objects("v1", "Pod", "muse", labelSelector=f"app.kubernetes.io/name={service}")


def test_a_stage_is_scheduled_onto_a_node_of_its_chip_and_no_other(
    cluster: Cluster, kubelets: Kubelets
) -> None:
    chip = {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "1x1",
        "cloud.google.com/gke-nodepool": "muse-tokenizer",
    }
    for name, labels in (
        ("fake-other", {**chip, "cloud.google.com/gke-tpu-topology": "2x2"}),
        ("fake-v5e", chip),
    ):
        kubelets.add(name, labels, {CHIP: "1"}, [TAINT])

    def places() -> list[str]:
        found = pods(cluster, "tokenizer")
        return [each["spec"]["nodeName"] for each in found if "nodeName" in each["spec"]]

    assert wait_until(places, SOON_S) == ["fake-v5e"]


def test_a_roll_out_is_waited_for_and_is_ready_then(
    cluster: Cluster, pools: Kubelets, muse: Muse
) -> None:
    apply_overlay()
    wait_for_roll_out()

    ended = muse("explain", "--overlay", "gke-v5e")

    assert ended.status == 0, ended
    assert len(pods(cluster, "base")) == 2


def test_a_budget_lets_one_pod_of_a_stage_go_at_a_time(cluster: Cluster, pools: Kubelets) -> None:
    apply_overlay()
    wait_for_roll_out()
    pools.rest()  # no pod replaces one that goes
    first, second = (each["metadata"]["name"] for each in pods(cluster, "base"))

    evict("muse", first)

    with pytest.raises(KubectlFailed, match="disruption budget"):
        evict("muse", second)


@pytest.mark.parametrize(("asked", "bound"), [(12, 10), (1, 2)])
def test_the_autoscaler_holds_the_orchestrator_between_its_bounds(
    asked: int, bound: int, cluster: Cluster, pools: Kubelets
) -> None:
    def replicas() -> int:
        return int(deployment(cluster, "orchestrator")["spec"]["replicas"])

    kubectl("-n", "muse", "scale", "deployment", "orchestrator", f"--replicas={asked}")

    assert wait_until(lambda: replicas() == bound, SOON_S)


async def test_the_orchestrator_s_own_token_finds_the_ready_pods_of_a_stage_and_nothing_else(
    cluster: Cluster, pools: Kubelets
) -> None:
    await asyncio.to_thread(apply_overlay)
    await asyncio.to_thread(wait_for_roll_out)
    configuration = client.Configuration()
    configuration.host, configuration.verify_ssl = cluster.server, False
    configuration.api_key = {"BearerToken": f"Bearer {token_of('orchestrator')}"}
    reported: list[list[str]] = []
    base = ServiceName("", "base", 50053)

    def ready() -> dict[str, str]:
        found = pods(cluster, "base")
        return {each["metadata"]["name"]: f"{each['status']['podIP']}:50053" for each in found}

    watch = KubernetesWatch(configuration, "muse", {base: reported.append})
    try:
        both = await asyncio.to_thread(ready)
        await until(lambda: bool(reported) and sorted(reported[-1]) == sorted(both.values()))

        pools.rest()  # no pod replaces one that goes
        gone, stays = both
        await asyncio.to_thread(evict, "muse", gone)

        await until(lambda: reported[-1] == [both[stays]])
    finally:
        await watch.close()
    with pytest.raises(client.ApiException, match="cannot list resource") as refused:
        client.CoreV1Api(client.ApiClient(configuration)).list_namespaced_pod("muse")
    assert refused.value.status == 403


@pytest.fixture
def training(
    cluster: Cluster, rendered: Rendered, whole_cluster: None
) -> Iterator[Callable[[int], Kubelets]]:
    """Applies the precompute Jobs, whose pods end with a status."""
    manifests, played = rendered("k8s/training/precompute"), []
    for each in manifests:
        apply(each)

    def play(exit_code: int) -> Kubelets:
        kubelets = Kubelets(cluster, "muse-training", exit_code=exit_code)
        played.append(kubelets)
        for each in manifests:
            if each["kind"] == "Job":
                labels = each["spec"]["template"]["spec"]["nodeSelector"]
                kubelets.add("fake-training", labels, {CHIP: "16"}, [TAINT])
        return kubelets

    yield play
    for each in manifests:
        if each["kind"] == "Job":
            delete(each, "--cascade=background")
    for kubelets in played:
        wait_until(lambda: not cluster.objects("v1", "Pod", "muse-training"), SOON_S)
        kubelets.close()


@pytest.mark.parametrize(
    ("exit_code", "condition", "reason"),
    [(0, "Complete", "CompletionsReached"), (78, "Failed", "PodFailurePolicy")],
)
def test_precompute_jobs_run_every_shard_or_end_at_a_mistake_that_all_would_meet(
    exit_code: int,
    condition: str,
    reason: str,
    cluster: Cluster,
    training: Callable[[int], Kubelets],
) -> None:
    training(exit_code)

    def conditions() -> list[Any]:
        jobs = cluster.objects("batch/v1", "Job", "muse-training")
        return [
            (each["metadata"]["name"], said["type"], said.get("reason"))
            for each in jobs
            for said in each["status"].get("conditions", ())
            if said["type"] in ("Complete", "Failed")
        ]

    names = ("precompute-embeddings", "precompute-tokens")
    assert wait_until(lambda: sorted(conditions())[1:] and sorted(conditions()), SOON_S) == [
        (name, condition, reason) for name in names
    ]
    if condition == "Complete":
        jobs = cluster.objects("batch/v1", "Job", "muse-training")
        assert {each["status"]["completedIndexes"] for each in jobs} == {"0-63"}


def test_the_environment_says_which_control_plane_this_was(control_plane: str) -> None:
    assert Path(os.environ["KUBECONFIG"]).is_file()
    assert control_plane in ("KUBEBUILDER_ASSETS", "KUBECONFIG")
