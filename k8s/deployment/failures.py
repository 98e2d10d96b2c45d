"""What a roll-out waits for, and why pods are not ready: by kubelet, scheduler, admission, logs."""

from collections.abc import Mapping, Sequence
from typing import Any

from k8s.checks.objects import at, selects
from k8s.checks.rendering import Manifest
from k8s.deployment.cluster import Cluster, ClusterError

REVISION = "deployment.kubernetes.io/revision"
LAST_LINES = 5
# Reasons of a waiting container that kubelet gives a message for.
EXPLAINED = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)


def rollout_state(deployment: Manifest) -> str:
    """Returns what a Deployment's roll-out waits for; "" once it is complete.

    Source: `kubectl rollout status`, which compares the same numbers.
    """
    metadata, status = deployment["metadata"], deployment.get("status", {})
    wanted = deployment["spec"].get("replicas", 1)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    if status.get("observedGeneration", 0) < metadata.get("generation", 0):
        state = "its controller has not seen the change"
    elif updated < wanted:
        state = f"{updated} of {wanted} new pods are made"
    elif status.get("replicas", 0) > updated:
        state = f"{status['replicas'] - updated} old pods are still to end"
    elif available < updated:
        state = f"{available} of {updated} pods are ready"
    else:
        return ""
    reason = _condition(deployment, "Progressing").get("reason")
    late = reason == "ProgressDeadlineExceeded"
    return f"{state}, and its progress deadline has passed" if late else state


def failures(
    cluster: Cluster, namespace: str, deployments: Sequence[Manifest], pods: Sequence[Manifest]
) -> list[str]:
    """Returns a reason for each pod of Deployments that is not ready, or could not be made."""
    found = []
    for each in deployments:
        failed = _condition(each, "ReplicaFailure")  # admission or a quota refuses its pods
        if failed.get("status") == "True":
            message = failed.get("message", "")
            found.append(f"deployment {each['metadata']['name']}: ReplicaFailure: {message}")
    waiting = [
        (deployment, pod)
        for deployment in deployments
        for pod in pods
        if selects(deployment["spec"]["selector"], pod["metadata"].get("labels", {}))
        and _condition(pod, "Ready").get("status") != "True"
        and "deletionTimestamp" not in pod["metadata"]
    ]
    if waiting:
        sets = cluster.objects("apps/v1", "ReplicaSet", namespace)
        warnings = _warnings(cluster, namespace)
        for deployment, pod in waiting:
            kind, text = _reason(cluster, namespace, pod, warnings)
            old = "" if _is_newest(pod, deployment, sets) else " (of an old revision)"
            found.append(f"pod {pod['metadata']['name']}{old}: {kind}: {text}")
    return found


def _is_newest(pod: Manifest, deployment: Manifest, sets: Sequence[Manifest]) -> bool:
    """Returns whether a pod is of its Deployment's newest ReplicaSet, so that it will stay."""
    return any(
        each["metadata"]["name"] in _owners(pod)
        and deployment["metadata"]["name"] in _owners(each)
        and _revision(each) == _revision(deployment)
        for each in sets
    )


def _owners(manifest: Manifest) -> set[str]:
    return {each["name"] for each in manifest["metadata"].get("ownerReferences", ())}


def _revision(manifest: Manifest) -> str | None:
    revision: str | None = at(manifest, "metadata.annotations", {}).get(REVISION)
    return revision


def _warnings(cluster: Cluster, namespace: str) -> dict[str, Manifest]:
    """Returns the last warning about each pod."""
    events = cluster.objects("v1", "Event", namespace, fieldSelector="type=Warning")
    events.sort(key=lambda each: each.get("lastTimestamp") or each.get("eventTime") or "")
    return {
        each["involvedObject"]["name"]: each
        for each in events
        if each["involvedObject"].get("kind") == "Pod"
    }


def _reason(
    cluster: Cluster, namespace: str, pod: Manifest, warnings: Mapping[str, Manifest]
) -> tuple[str, str]:
    """Returns the kind of the reason, and its message."""
    status, name = pod.get("status", {}), pod["metadata"]["name"]
    if status.get("phase") == "Failed":  # by its node, which evicted it or went down: it stays so
        return status.get("reason", "Failed"), status.get("message", "it has ended for good")
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return scheduled.get("reason", "Unschedulable"), scheduled.get("message", "")
    boxes = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    waits = [at(box, "state.waiting", {}) for box in boxes]
    for box, waiting in zip(boxes, waits, strict=True):
        if waiting.get("reason") == "CrashLoopBackOff":
            return waiting["reason"], _crash(cluster, namespace, name, box)
        if waiting.get("reason") in EXPLAINED:
            return waiting["reason"], waiting.get("message", "")
    for box in boxes:
        if box.get("restartCount") and not box.get("ready"):
            return "Restarted", _crash(cluster, namespace, name, box)
    if event := warnings.get(name):
        times = event.get("count") or at(event, "series.count") or 1
        return event.get("reason", "Warning"), f"{event.get('message', '')} ({times} times)"
    for waiting in waits:
        if waiting.get("reason"):
            return waiting["reason"], "nothing is wrong with it yet"
    return status.get("phase", "Unknown"), "not ready yet"


def _crash(cluster: Cluster, namespace: str, pod: str, box: Mapping[str, Any]) -> str:
    """Returns how a container ended, and the last lines of its log."""
    ended = at(box, "lastState.terminated", {})
    how = f"{box['name']} ended {box['restartCount']} times, last with exit code "
    how += f"{ended.get('exitCode', 'unknown')} ({ended.get('reason', 'no reason')})"
    query = {"container": box["name"], "previous": "true", "tailLines": str(LAST_LINES)}
    try:
        lines = cluster.log(namespace, pod, **query)
    except ClusterError as error:
        lines = [f"its log cannot be read: {error}"]
    return "\n".join([how, *(f"    {line}" for line in lines)])


def _condition(manifest: Manifest, kind: str) -> Mapping[str, Any]:
    conditions = at(manifest, "status.conditions", ())
    return next((each for each in conditions if each["type"] == kind), {})
