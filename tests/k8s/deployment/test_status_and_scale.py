"""`muse deploy status` and `scale` against a fake API server."""

from typing import Any

import pytest

V5E = ("--overlay", "gke-v5e")


def autoscaler(name: str, target: str, **metadata: Any) -> Any:
    return {
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": "muse", **metadata},
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": target},
            "minReplicas": 1,
            "maxReplicas": 8,
            "metrics": [
                {
                    "type": "Pods",
                    "pods": {
                        "metric": {"name": "muse_steps_waiting"},
                        "target": {"type": "AverageValue", "averageValue": "24"},
                    },
                }
            ],
        },
        "status": {
            "currentReplicas": 2,
            "desiredReplicas": 3,
            "conditions": [
                {"type": "ScalingActive", "status": "False", "message": "no metrics returned"}
            ],
        },
    }


def rows(out: str) -> dict[str, list[str]]:
    """Returns the cells of the tables' rows, by the first."""
    lines = [line.strip("│┃ ").replace("┃", "│") for line in out.splitlines() if "│" in line]
    cells = [[cell.strip() for cell in line.split("│")] for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_status_shows_each_deployment_and_autoscaler(system: Any, muse: Any) -> None:
    pod = {
        "kind": "Pod",
        "metadata": {
            "name": "base-1",
            "namespace": "muse",
            "labels": {"app.kubernetes.io/name": "base"},
        },
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "server", "ready": True, "restartCount": 3}],
        },
    }
    system.put(pod)
    system.put(autoscaler("superres", "superres"))
    system.changed.clear()

    ended = muse("status", *V5E)

    assert ended.status == 0
    found = rows(ended.out)
    assert found["base"][:3] == ["2/2", "example.invalid/muse/muse-base:0.1.0-tpu", "3"]
    assert found["text-encoder"][0] == "1/1"
    assert found["superres -> superres"] == [
        "2, wants 3",
        "1 to 8",
        "muse_steps_waiting 24",
        "no metrics returned",
    ]
    assert "orchestrator -> orchestrator" in found
    assert system.changed == []


def test_status_fails_and_says_why_while_something_is_not_ready(system: Any, muse: Any) -> None:
    system.stuck = {"base"}
    system.take("deployments", "muse", "base", {"spec": {"paused": False}}, "somebody")
    waiting = {"waiting": {"reason": "ContainerCreating"}}
    pod = {
        "kind": "Pod",
        "metadata": {
            "name": "base-1",
            "namespace": "muse",
            "labels": {"app.kubernetes.io/name": "base"},
        },
        "status": {
            "phase": "Pending",
            "containerStatuses": [
                {"name": "server", "ready": False, "restartCount": 0, "state": waiting}
            ],
        },
    }
    system.put(pod)

    ended = muse("status", *V5E)

    assert ended.status == 1
    assert rows(ended.out)["base"][0] == "0/2"
    assert "pod base-1: ContainerCreating: nothing is wrong with it yet" in ended.out


def test_status_of_what_was_never_applied(api: Any, muse: Any) -> None:
    ended = muse("status", *V5E)

    assert ended.status == 1
    assert rows(ended.out)["base"][-1] == "is not there: `muse deploy apply`"


def test_scaling_one_stage_changes_it_alone_and_waits(system: Any, muse: Any) -> None:
    ended = muse("scale", "base", "4", *V5E)

    assert ended.status == 0, ended
    assert "base: 2 -> 4" in ended.out
    assert system.changed == [("muse-scale", "Deployment/base")]
    assert system.object("deployments", "muse", "base")["spec"]["replicas"] == 4


def test_the_next_apply_names_what_was_scaled_and_does_not_set_it_back(
    system: Any, muse: Any
) -> None:
    assert muse("scale", "base", "4", *V5E).status == 0

    ended = muse("apply", *V5E)

    assert ended.status == 1
    assert (
        "Deployment/base: .spec.replicas was set by muse-scale (`muse deploy scale`) to another"
        in ended.out
    )
    assert system.object("deployments", "muse", "base")["spec"]["replicas"] == 4


def test_what_an_autoscaler_sets_is_not_scaled(system: Any, muse: Any) -> None:
    ended = muse("scale", "orchestrator", "4", *V5E)

    assert ended.error.startswith(
        "muse: orchestrator: HorizontalPodAutoscaler/orchestrator (2 to 10) sets its replicas"
    )
    assert system.changed == []


def test_what_keda_sets_is_not_scaled(system: Any, muse: Any) -> None:
    owner = {"kind": "ScaledObject", "name": "base"}
    system.put(autoscaler("keda-hpa-base", "base", ownerReferences=[owner]))
    assert "ScaledObject/base (KEDA) sets its replicas" in muse("scale", "base", "4", *V5E).error

    system.kinds["keda.sh/v1alpha1"] = [("scaledobjects", "ScaledObject", True)]
    scaled = {
        "kind": "ScaledObject",
        "metadata": {"name": "superres", "namespace": "muse"},
        "spec": {"scaleTargetRef": {"name": "superres"}},
    }
    system.put(scaled)
    system.changed.clear()
    ended = muse("scale", "superres", "4", *V5E)
    assert "ScaledObject/superres (KEDA) sets its replicas" in ended.error
    assert system.changed == []


def test_more_chips_than_a_quota_has_are_refused(system: Any, muse: Any) -> None:
    chips = {"requests.google.com/tpu": "8"}
    quota = {
        "kind": "ResourceQuota",
        "metadata": {"name": "chips", "namespace": "muse"},
        "status": {"hard": chips, "used": {"requests.google.com/tpu": "6"}},
    }
    system.put(quota)
    system.changed.clear()

    ended = muse("scale", "base", "5", *V5E)

    assert ended.error == (
        "muse: base: 5 replicas want 3 more of google.com/tpu, and ResourceQuota/chips has 2 of 8 "
        "left"
    )
    assert system.changed == []
    assert muse("scale", "base", "4", *V5E).status == 0


def test_more_chips_than_the_pool_has_now_are_noted(system: Any, muse: Any) -> None:
    node = {
        "kind": "Node",
        "metadata": {
            "name": "n1",
            "labels": {
                "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
                "cloud.google.com/gke-tpu-topology": "1x1",
                "cloud.google.com/gke-nodepool": "muse-base",
            },
        },
        "status": {"allocatable": {"google.com/tpu": "1"}},
    }
    system.put(node)
    other = {"name": "n2", "labels": {"cloud.google.com/gke-nodepool": "muse-superres"}}
    system.put({**node, "metadata": other})

    ended = muse("scale", "base", "3", *V5E)

    assert ended.status == 0
    assert (
        "base: 3 replicas want 3 of google.com/tpu, and its pool has 1 on 1 nodes now" in ended.out
    )
    system.forbidden = {("list", "nodes")}
    assert "you may not list nodes" in muse("scale", "base", "4", *V5E).out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bass", "2"], "service: expected one of base, orchestrator, superres, text-encoder,"),
        (["base", "-1"], "replicas: expected 0 or more, got -1"),
    ],
)
def test_a_wrong_scale_says_why(system: Any, muse: Any, words: list[str], said: str) -> None:
    ended = muse("scale", *words, *V5E)

    assert ended.error.startswith(f"muse: {said}")
    assert system.changed == []


def test_what_is_not_there_cannot_be_scaled(api: Any, muse: Any) -> None:
    ended = muse("scale", "base", "2", *V5E)

    assert ended.error == "muse: Deployment/base is not there: `muse deploy apply` makes it"


def test_who_may_not_scale_is_told(system: Any, muse: Any) -> None:
    system.forbidden = {("patch", "deployments")}

    ended = muse("scale", "base", "3", *V5E)

    assert "you may not patch deployments.apps/scale in namespace muse (403)" in ended.error
