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

LOOK_S = 2.0  # between two looks for new pods, and for logs that have ended
CLUSTER = "cluster"  # who speaks where no pod does
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

    A log that breaks off or ends, as a container does before it is started again, is taken up where
    it was left. What cannot be read now is said once, and tried again.

    Raises:
        ClusterError: the pods cannot be listed, and that will not pass.
    """
    lines: queue.Queue[Line] = queue.Queue(1000)
    readers: dict[str, _Reader] = {}
    look, query = 0.0, {} if since_s is None else {"sinceSeconds": str(since_s)}
    problem = ""
    while True:
        if time.monotonic() >= look:
            try:
                started = _started(cluster, namespace, deployments)
            except ClusterError as error:
                if not error.passing or not readers:
                    raise
                if problem != str(error):
                    yield Line(pod=CLUSTER, text=f"[{error}]")
                problem = str(error)
            else:
                for each in started:
                    if each.pod not in readers:
                        readers[each.pod] = _Reader(cluster, namespace, each, query, lines)
                    readers[each.pod].go_on()
                problem, query = "", {}
            look = time.monotonic() + LOOK_S
        try:
            yield lines.get(timeout=max(look - time.monotonic(), 0.01))
        except queue.Empty:
            continue


@dataclass(frozen=True, kw_only=True, order=True)
class _Started:
    """A pod that has begun to run.

    Attributes:
        pod: Its name.
        container: Whose log it is: of the Deployment's own, not of what a mesh or a cloud's driver
            has put beside it.
    """

    pod: str
    container: str


class _Reader:
    """Follows the log of a pod in a thread: a daemon, as a silent log cannot be interrupted."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        one: _Started,
        query: dict[str, str],
        lines: queue.Queue[Line],
    ) -> None:
        self._cluster, self._namespace, self._one = cluster, namespace, one
        self._query, self._lines = query, lines  # the query is of a log of which nothing was read
        self._stamp = self._problem = ""  # of the last line, and what was said last of no log
        self._thread: threading.Thread | None = None

    def go_on(self) -> None:
        """Reads on, unless it does."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._read, name=f"log of {self._one.pod}", daemon=True
            )
            self._thread.start()

    def _read(self) -> None:
        pod, left = self._one.pod, _moment(self._stamp)
        query = {"sinceTime": self._stamp} if self._stamp else self._query
        query = {"container": self._one.container, "timestamps": "true", **query}
        try:
            for line in self._cluster.log(self._namespace, pod, query, follow=True):
                stamp, _, text = line.partition(" ")
                if _moment(stamp) > left:  # sinceTime gives what was read last once more
                    self._lines.put(Line(pod=pod, text=text))
                    self._stamp, self._problem = stamp, ""
        except ClusterError as error:
            if str(error) != self._problem:
                self._lines.put(Line(pod=pod, text=f"[{error}]"))
            self._problem = str(error)


def _started(cluster: Cluster, namespace: str, deployments: Sequence[Manifest]) -> list[_Started]:
    """Returns the pods that have begun to run; others have no log."""
    pods = cluster.objects("v1", "Pod", namespace)
    return sorted(
        _Started(
            pod=pod["metadata"]["name"],
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
            moment = _moment(stamp)
            yield moment, Line(pod=one.pod, text=text)
    except ClusterError as error:
        yield moment, Line(pod=one.pod, text=f"[{error}]")


def _moment(stamp: str) -> str:
    """Returns the time in front of a line such that it sorts as text."""
    seconds, _, fraction = stamp.rstrip("Z").partition(".")
    return f"{seconds}.{fraction:0<9}"
