"""The logs of all pods: merged by time, or as lines come."""

import heapq
import queue
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from k8s.checks.rendering import Manifest
from k8s.deployment.cluster import Cluster, ClusterError
from k8s.deployment.failures import pods_of

LOOK_S = 2.0  # between two looks for new pods
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a pod's log.

    Attributes:
        pod: Whose it is.
        text: What it says.
    """

    pod: str
    text: str


def parse_since(text: str) -> int:
    """Returns the seconds of a time such as "90s", "10m", "2h" or "1d".

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(r"([0-9]+)([smhd])", text)
    if found is None or int(found[1]) == 0:
        raise ValueError(f"since: expected a time such as 90s, 10m, 2h or 1d, got {text!r}")
    return int(found[1]) * UNITS_S[found[2]]


def past_lines(
    cluster: Cluster, namespace: str, deployments: Sequence[Manifest], *, since_s: int | None
) -> Iterator[Line]:
    """Yields what the pods of Deployments have logged, in the order of time.

    Args:
        cluster: Where they are.
        namespace: Of the Deployments.
        deployments: Whose pods.
        since_s: Only the last seconds; everything that kubelet has kept if None.
    """
    streams = [
        _timed(cluster, namespace, each, since_s)
        for each in _started(cluster, namespace, deployments)
    ]
    for _, line in heapq.merge(*streams, key=lambda each: each[0]):
        yield line


def coming_lines(
    cluster: Cluster, namespace: str, deployments: Sequence[Manifest], *, since_s: int | None
) -> Iterator[Line]:
    """Yields lines as they come, those of pods that start later too; without end.

    A thread reads each pod; the threads are daemons, for a pod that says nothing cannot be
    interrupted.
    """
    lines: queue.Queue[Line] = queue.Queue(1000)
    read: set[_Started] = set()
    look, query = 0.0, {} if since_s is None else {"sinceSeconds": str(since_s)}

    def follow(one: _Started, query: dict[str, str]) -> None:
        query = {"container": one.container, **query}
        try:
            for text in cluster.log(namespace, one.pod, query, follow=True):
                lines.put(Line(pod=one.pod, text=text))
        except ClusterError as error:
            lines.put(Line(pod=one.pod, text=f"[{error}]"))

    while True:
        if time.monotonic() >= look:
            for each in _started(cluster, namespace, deployments):
                if each not in read:
                    read.add(each)
                    threading.Thread(
                        target=follow, args=(each, query), name=f"log of {each.pod}", daemon=True
                    ).start()
            look, query = time.monotonic() + LOOK_S, {}
        try:
            yield lines.get(timeout=max(look - time.monotonic(), 0.01))
        except queue.Empty:
            continue


@dataclass(frozen=True, kw_only=True, order=True)
class _Started:
    """A pod that has begun to run.

    Attributes:
        pod: Its name.
        restarts: How often its containers have restarted.
        container: Whose log it is: of the Deployment's own, not of what a mesh or a cloud's driver
            has put beside it.
    """

    pod: str
    restarts: int
    container: str


def _started(cluster: Cluster, namespace: str, deployments: Sequence[Manifest]) -> list[_Started]:
    """Returns the pods that have begun to run; others have no log."""
    pods = cluster.objects("v1", "Pod", namespace)
    return sorted(
        _Started(
            pod=pod["metadata"]["name"],
            restarts=sum(box["restartCount"] for box in pod["status"].get("containerStatuses", ())),
            container=deployment["spec"]["template"]["spec"]["containers"][0]["name"],
        )
        for deployment in deployments
        for pod in pods_of(deployment, pods)
        if pod.get("status", {}).get("phase", "Pending") != "Pending"
    )


def _timed(
    cluster: Cluster, namespace: str, one: _Started, since_s: int | None
) -> Iterator[tuple[str, Line]]:
    """Yields the lines of a pod's log, each with a time that sorts as text."""
    query = {"container": one.container, "timestamps": "true"}
    query |= {} if since_s is None else {"sinceSeconds": str(since_s)}
    moment = ""
    try:
        for line in cluster.log(namespace, one.pod, query):
            stamp, _, text = line.partition(" ")
            seconds, _, fraction = stamp.rstrip("Z").partition(".")
            moment = f"{seconds}.{fraction:0<9}"
            yield moment, Line(pod=one.pod, text=text)
    except ClusterError as error:
        yield moment, Line(pod=one.pod, text=f"[{error}]")
