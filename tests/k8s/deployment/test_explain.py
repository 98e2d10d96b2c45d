"""`muse deploy explain`: why a Deployment is not ready, from a fake API server."""

from typing import Any

import pytest

from k8s.deployment.failures import rollout_state
from tests.k8s.conftest import Muse
from tests.k8s.deployment.fake_api import FakeApiServer

V5E = ("--overlay", "gke-v5e")
PULL = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image: not found"}}
CRASH = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting"}}


def pod(name: str, *, ready: bool = False, revision: str = "base-new", **status: Any) -> Any:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "muse",
            "labels": {"app.kubernetes.io/name": "base"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": revision}],
        },
        "status": {
            "phase": "Running",
            **status,
            "conditions": conditions + status.get("conditions", []),
        },
    }


def replica_set(name: str, revision: str) -> Any:
    return {
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "namespace": "muse",
            "annotations": {"deployment.kubernetes.io/revision": revision},
            "ownerReferences": [{"kind": "Deployment", "name": "base"}],
        },
    }


def box(state: Any, restarts: int = 0, **more: Any) -> Any:
    return {"name": "server", "ready": False, "restartCount": restarts, "state": state, **more}


@pytest.fixture
def stuck(system: FakeApiServer) -> FakeApiServer:
    """A system whose base does not become ready; its newest ReplicaSet is base-new."""
    system.not_ready = {"base"}
    base = system.object("deployments", "muse", "base")
    base["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "2"}
    system.put(replica_set("base-old", "1"))
    system.put(replica_set("base-new", "2"))
    return system


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"observedGeneration": 1}, "its controller has not seen the change"),
        ({"updatedReplicas": 1}, "1 of 3 new pods are made"),
        ({"replicas": 4}, "1 old pods are still to end"),
        ({"availableReplicas": 2}, "2 of 3 pods are ready"),
        ({}, ""),
    ],
)
def test_a_roll_out_waits_for_one_thing_after_another(changes: dict[str, int], state: str) -> None:
    status: dict[str, Any] = {
        "observedGeneration": 2,
        "updatedReplicas": 3,
        "replicas": 3,
        "availableReplicas": 3,
        **changes,
    }
    deployment = {"metadata": {"name": "base", "generation": 2}, "spec": {"replicas": 3}}

    assert rollout_state({**deployment, "status": status}) == state

    status["conditions"] = [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]
    late = f"{state}, and its progress deadline has passed" if state else ""
    assert rollout_state({**deployment, "status": status}) == late


def test_what_has_rolled_out_needs_no_explanation(system: FakeApiServer, muse: Muse) -> None:
    system.put(pod("base-new-1", ready=True))

    ended = muse("explain", *V5E)

    assert ended.status == 0, ended
    assert ended.out == (
        f"context fake, {system.address}, namespace muse\nall 6 Deployments have rolled out\n"
    )


def test_what_was_never_applied_is_not_there(api: FakeApiServer, muse: Muse) -> None:
    ended = muse("explain", *V5E)

    assert ended.status == 1
    assert "deployment base: is not there\n" in ended.out
    assert ended.out.count("is not there") == 6


def test_an_image_that_cannot_be_pulled_is_named(stuck: FakeApiServer, muse: Muse) -> None:
    stuck.put(pod("base-new-1", containerStatuses=[box(PULL)]))

    ended = muse("explain", *V5E)

    assert ended.status == 1
    assert "deployment base: 0 of 2 pods are ready\n" in ended.out
    assert "pod base-new-1: ImagePullBackOff: Back-off pulling image: not found\n" in ended.out


def test_a_crash_is_shown_with_its_last_lines(stuck: FakeApiServer, muse: Muse) -> None:
    ended_with = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    stuck.put(pod("base-new-1", containerStatuses=[box(CRASH, 4, lastState=ended_with)]))
    stuck.logs["base-new-1 previous"] = [f"line {i}" for i in range(8)]

    ended = muse("explain", *V5E)

    assert (
        "pod base-new-1: CrashLoopBackOff: server ended 4 times, last with exit code 137 "
        "(OOMKilled)\n    line 3\n    line 4\n    line 5\n    line 6\n    line 7\n"
    ) in ended.out
    assert ended.status == 1


def test_a_crash_whose_log_is_gone_says_so(stuck: FakeApiServer, muse: Muse) -> None:
    stuck.put(pod("base-new-1", containerStatuses=[box(CRASH, 4)]))

    ended = muse("explain", *V5E)

    assert "last with exit code unknown (no reason)\n    its log cannot be read: " in ended.out


def test_a_pod_that_no_node_takes_has_the_schedulers_sentence(
    stuck: FakeApiServer, muse: Muse
) -> None:
    sentence = "0/3 nodes are available: 3 Insufficient google.com/tpu."
    unscheduled = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": sentence,
    }
    stuck.put(pod("base-new-1", phase="Pending", conditions=[unscheduled]))

    ended = muse("explain", *V5E)

    assert f"pod base-new-1: Unschedulable: {sentence}\n" in ended.out


def test_a_startup_probe_that_fails_is_read_from_the_newest_event(
    stuck: FakeApiServer, muse: Muse
) -> None:
    stuck.put(pod("base-new-1", containerStatuses=[box({"running": {}})]))
    for count, when in ((1, "2026-11-26T00:00:01Z"), (7, "2026-11-26T00:00:09Z")):
        event = {
            "kind": "Event",
            "metadata": {"name": f"e{count}", "namespace": "muse"},
            "involvedObject": {"kind": "Pod", "name": "base-new-1"},
            "type": "Warning",
            "reason": "Unhealthy",
            "message": "Startup probe failed: service unhealthy",
            "count": count,
            "lastTimestamp": when,
        }
        stuck.put(event)

    ended = muse("explain", *V5E)

    assert (
        "pod base-new-1: Unhealthy: Startup probe failed: service unhealthy (7 times)" in ended.out
    )


def test_a_pod_that_starts_normally_is_said_to_be_well(stuck: FakeApiServer, muse: Muse) -> None:
    waiting = {"waiting": {"reason": "ContainerCreating"}}
    stuck.put(pod("base-new-1", phase="Pending", containerStatuses=[box(waiting)]))

    ended = muse("explain", *V5E)

    assert "pod base-new-1: ContainerCreating: nothing is wrong with it yet" in ended.out


def test_a_pod_that_is_being_replaced_is_marked(stuck: FakeApiServer, muse: Muse) -> None:
    stuck.put(pod("base-old-1", revision="base-old", containerStatuses=[box(PULL)]))

    ended = muse("explain", *V5E)

    assert "pod base-old-1 (of an old revision): ImagePullBackOff" in ended.out


def test_a_pod_that_its_node_evicted_has_the_nodes_reason(stuck: FakeApiServer, muse: Muse) -> None:
    why = "The node was low on resource: memory."
    stuck.put(pod("base-new-1", phase="Failed", reason="Evicted", message=why))

    ended = muse("explain", *V5E)

    assert f"pod base-new-1: Evicted: {why}" in ended.out


def test_pods_that_a_quota_or_admission_refuses_are_explained(
    stuck: FakeApiServer, muse: Muse
) -> None:
    message = 'pods "base-new-" is forbidden: exceeded quota: chips'
    base = stuck.object("deployments", "muse", "base")
    condition = {"type": "ReplicaFailure", "status": "True", "message": message}
    base["status"] = {"conditions": [condition]}

    ended = muse("explain", *V5E)

    assert ended.status == 1
    assert f"deployment base: ReplicaFailure: {message}" in ended.out
