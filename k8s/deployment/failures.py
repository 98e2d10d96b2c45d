"""Reasons why pods are not ready, from kubelet, scheduler, admission and the container's log."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k8s.checks.objects import selects
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


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a pod is not ready, or is not even made.

    Attributes:
        deployment: Name of the Deployment.
        pod: Name of the pod; "" if none was made.
        kind: Such as "ImagePullBackOff" or "Unschedulable".
        text: The message; may have several lines.
        current: Whether the pod is of the newest revision, and not about to be replaced.
    """

    deployment: str
    pod: str
    kind: str
    text: str
    current: bool = True

    def __str__(self) -> str:
        subject = f"pod {self.pod}" if self.pod else f"deployment {self.deployment}"
        revision = "" if self.current else " (of an old revision)"
        return f"{subject}{revision}: {self.kind}: {self.text}"


def pods_of(deployment: Manifest, pods: Sequence[Manifest]) -> list[Manifest]:
    """Returns the pods that a Deployment selects."""
    selector = deployment["spec"]["selector"]
    return [each for each in pods if selects(selector, each["metadata"].get("labels", {}))]


def is_ready(pod: Manifest) -> bool:
    """Returns whether a pod's readiness probe succeeds."""
    return _condition(pod, "Ready").get("status") == "True"


def failures(
    cluster: Cluster, namespace: str, deployments: Sequence[Manifest], pods: Sequence[Manifest]
) -> list[Failure]:
    """Returns a reason for each pod that is not ready, and for pods that could not be made.

    Args:
        cluster: The cluster that has them.
        namespace: The Deployments' namespace.
        deployments: Deployments with their status.
        pods: All pods of the namespace.
    """
    waiting = [
        (deployment, pod)
        for deployment in deployments
        for pod in pods_of(deployment, pods)
        if not is_ready(pod) and "deletionTimestamp" not in pod["metadata"]
    ]
    found = [failure for each in deployments for failure in _not_made(each)]
    if waiting:
        newest = _newest(cluster.objects("apps/v1", "ReplicaSet", namespace), deployments)
        warnings = _warnings(cluster, namespace)
        for deployment, pod in waiting:
            kind, text = _reason(cluster, namespace, pod, warnings)
            owners = {each["name"] for each in pod["metadata"].get("ownerReferences", ())}
            name = deployment["metadata"]["name"]
            found.append(
                Failure(
                    deployment=name,
                    pod=pod["metadata"]["name"],
                    kind=kind,
                    text=text,
                    current=newest.get(name) in owners,
                )
            )
    return found


def _not_made(deployment: Manifest) -> Iterator[Failure]:
    """Yields why a Deployment has no pod to look at: admission or a quota refuses it."""
    failed = _condition(deployment, "ReplicaFailure")
    if failed.get("status") == "True":
        yield Failure(
            deployment=deployment["metadata"]["name"],
            pod="",
            kind="ReplicaFailure",
            text=failed.get("message", ""),
        )


def _newest(sets: Sequence[Manifest], deployments: Sequence[Manifest]) -> dict[str, str]:
    """Returns the name of each Deployment's newest ReplicaSet."""
    found = {}
    for deployment in deployments:
        metadata = deployment["metadata"]
        revision = metadata.get("annotations", {}).get(REVISION)
        for each in sets:
            owners = {owner["name"] for owner in each["metadata"].get("ownerReferences", ())}
            said = each["metadata"].get("annotations", {}).get(REVISION)
            if metadata["name"] in owners and said == revision:
                found[metadata["name"]] = each["metadata"]["name"]
    return found


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
    for box in boxes:
        waiting = box.get("state", {}).get("waiting", {})
        if waiting.get("reason") in EXPLAINED:
            if waiting["reason"] == "CrashLoopBackOff":
                return waiting["reason"], _crash(cluster, namespace, name, box)
            return waiting["reason"], waiting.get("message", "")
    for box in boxes:
        if box.get("restartCount") and not box.get("ready"):
            return "Restarted", _crash(cluster, namespace, name, box)
    event = warnings.get(name)
    if event is not None:
        times = event.get("count") or event.get("series", {}).get("count") or 1
        return event.get("reason", "Warning"), f"{event.get('message', '')} ({times} times)"
    for box in boxes:
        reason = box.get("state", {}).get("waiting", {}).get("reason")
        if reason:
            return reason, "nothing is wrong with it yet"
    return status.get("phase", "Unknown"), "not ready yet"


def _crash(cluster: Cluster, namespace: str, pod: str, box: Mapping[str, Any]) -> str:
    """Returns how a container ended, and the last lines of its log."""
    ended = box.get("lastState", {}).get("terminated", {})
    how = f"{box['name']} ended {box['restartCount']} times, last with exit code "
    how += f"{ended.get('exitCode', 'unknown')} ({ended.get('reason', 'no reason')})"
    query = {"container": box["name"], "previous": "true", "tailLines": str(LAST_LINES)}
    try:
        lines = list(cluster.log(namespace, pod, query))
    except ClusterError as error:
        lines = [f"its log cannot be read: {error}"]
    return "\n".join([how, *(f"    {line}" for line in lines)])


def _condition(manifest: Manifest, kind: str) -> Mapping[str, Any]:
    conditions = manifest.get("status", {}).get("conditions", ())
    return next((each for each in conditions if each["type"] == kind), {})
