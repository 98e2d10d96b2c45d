"""The wait for a roll-out, and what it says of pods that are not ready."""

from typing import Any

import pytest

from k8s.deployment import rollouts
from k8s.deployment.cluster import Unreachable
from k8s.deployment.failures import failures
from k8s.deployment.rollouts import rollout

V5E = ("--overlay", "gke-v5e", "--timeout-s", "30")
SOON = (*V5E[:-1], "0.5")
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
def stuck(system: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A system whose base does not become ready; its newest ReplicaSet is base-new."""
    monkeypatch.setattr(rollouts, "PATIENCE_S", 0.1)
    system.stuck = {"base"}
    annotation = {"metadata": {"annotations": {"deployment.kubernetes.io/revision": "2"}}}
    system.take("deployments", "muse", "base", annotation, "deployment-controller")
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
    status = {
        "observedGeneration": 2,
        "updatedReplicas": 3,
        "replicas": 3,
        "availableReplicas": 3,
        "conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}],
    }
    metadata = {"name": "base", "generation": 2}

    found = rollout(
        {"metadata": metadata, "spec": {"replicas": 3}, "status": {**status, **changes}}
    )

    assert found.state == state
    assert found.given_up == bool(state)


def test_an_image_that_cannot_be_pulled_ends_the_wait_and_is_named(stuck: Any, muse: Any) -> None:
    stuck.put(pod("base-new-1", containerStatuses=[box(PULL)]))

    ended = muse("apply", *V5E)

    assert ended.status == 1
    assert "pod base-new-1: ImagePullBackOff: Back-off pulling image: not found" in ended.out
    assert ended.error == (
        "muse: not rolled out and will not by waiting: Deployment/base (0 of 2 pods are ready)"
    )


def test_a_crash_is_shown_with_its_last_lines(stuck: Any, muse: Any) -> None:
    ended_with = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    stuck.put(pod("base-new-1", containerStatuses=[box(CRASH, 4, lastState=ended_with)]))
    stuck.say("base-new-1 previous", *(f"2026-11-26T00:00:0{i}Z line {i}" for i in range(8)))

    ended = muse("apply", *V5E)

    assert (
        "pod base-new-1: CrashLoopBackOff: server ended 4 times, last with exit code 137 "
        "(OOMKilled)\n    line 3\n    line 4\n    line 5\n    line 6\n    line 7\n"
    ) in ended.out
    assert ended.status == 1


def test_a_pod_that_no_node_takes_has_the_schedulers_sentence_and_is_waited_for(
    stuck: Any, muse: Any
) -> None:
    sentence = "0/3 nodes are available: 3 Insufficient google.com/tpu."
    unscheduled = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": sentence,
    }
    stuck.put(pod("base-new-1", phase="Pending", conditions=[unscheduled]))

    ended = muse("apply", *SOON)

    assert f"pod base-new-1: Unschedulable: {sentence}" in ended.out
    assert ended.error.startswith("muse: not rolled out after 0.5 s: Deployment/base")


def test_a_startup_probe_that_fails_is_told_from_the_events(stuck: Any, muse: Any) -> None:
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

    ended = muse("apply", *SOON)

    assert (
        "pod base-new-1: Unhealthy: Startup probe failed: service unhealthy (7 times)" in ended.out
    )


def test_a_pod_that_is_being_replaced_does_not_end_the_wait(stuck: Any, muse: Any) -> None:
    stuck.put(pod("base-old-1", revision="base-old", containerStatuses=[box(PULL)]))

    ended = muse("apply", *SOON)

    assert "pod base-old-1: ImagePullBackOff" in ended.out
    assert "after 0.5 s" in ended.error


def test_a_pod_that_its_node_evicted_is_told_as_such_and_waited_for(stuck: Any, muse: Any) -> None:
    why = "The node was low on resource: memory."
    stuck.put(pod("base-new-1", phase="Failed", reason="Evicted", message=why))

    ended = muse("apply", *SOON)

    assert f"pod base-new-1: Evicted: {why}" in ended.out
    assert "after 0.5 s" in ended.error


def test_pods_that_are_not_even_made_are_told(stuck: Any, muse: Any) -> None:
    message = 'pods "base-new-" is forbidden: exceeded quota: chips'
    found = stuck.object("deployments", "muse", "base")
    condition = {"type": "ReplicaFailure", "status": "True", "message": message}
    found["status"]["conditions"] = [condition]

    ended = muse("apply", *V5E)

    assert f"deployment base: ReplicaFailure: {message}" in ended.out
    assert "will not by waiting" in ended.error


def test_a_controller_that_has_given_up_ends_the_wait(stuck: Any, muse: Any) -> None:
    found = stuck.object("deployments", "muse", "base")
    condition = {
        "type": "Progressing",
        "status": "False",
        "reason": "ProgressDeadlineExceeded",
    }
    found["status"]["conditions"] = [condition]
    stuck.put(pod("base-new-1", containerStatuses=[box({"running": {}})]))

    ended = muse("apply", *V5E)

    assert "pod base-new-1: Running: not ready yet" in ended.out
    assert "will not by waiting: Deployment/base" in ended.error


def test_a_deployment_that_somebody_deletes_is_not_waited_for(
    api: Any, muse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.vanish = {"base"}

    ended = muse("apply", *V5E)

    assert ended.error == "muse: Deployment/base: somebody has deleted it"


def test_an_api_server_that_is_away_for_a_while_does_not_end_the_wait(
    stuck: Any, muse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def away_once(*arguments: Any) -> Any:
        looks.append(1)
        if len(looks) == 1:
            raise Unreachable("the API server cannot be reached")
        stuck.stuck = set()
        stuck.take("deployments", "muse", "base", {"spec": {"paused": False}}, "somebody")
        return failures(*arguments)

    monkeypatch.setattr(rollouts, "failures", away_once)

    ended = muse("apply", *V5E)

    assert ended.status == 0, ended
    assert "the API server cannot be reached" in ended.out


def test_an_api_server_that_is_unwell_for_a_while_does_not_end_the_wait(
    api: Any, muse: Any
) -> None:
    api.unwell["list", "deployments"] = 2

    ended = muse("apply", *V5E)

    assert ended.status == 0, ended
    assert "refused to list deployments.apps in namespace muse (503)" in ended.out
    assert api.unwell["list", "deployments"] == 0


def test_a_list_that_is_forbidden_ends_the_wait(api: Any, muse: Any) -> None:
    api.forbidden = {("list", "deployments")}

    ended = muse("apply", *V5E)

    assert ended.status == 1
    assert "you may not list deployments.apps in namespace muse (403)" in ended.error
