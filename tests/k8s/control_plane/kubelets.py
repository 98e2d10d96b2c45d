"""Nodes that are none, and what their kubelets would say of pods: these run, are ready and end."""

import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from k8s.checks.rendering import Manifest
from k8s.deployment.cluster import Cluster
from tests.k8s.control_plane.kubectl import apply, delete, patch_status

PAUSE_S = 0.2
HEARTBEAT_S = 5.0  # a node without a heartbeat for 40 s is given up
PART = {"app.kubernetes.io/part-of": "muse"}


class Kubelets:
    """Plays the kubelets of made-up nodes, in a thread, until it is closed."""

    def __init__(self, cluster: Cluster, namespace: str, *, exit_code: int = 0) -> None:
        """Has no node yet.

        Args:
            cluster: Where the nodes are.
            namespace: Of the pods.
            exit_code: What pods of Jobs end with; others go on.
        """
        self._cluster, self._namespace, self._exit_code = cluster, namespace, exit_code
        self._addresses = itertools.count(1)
        self._nodes: dict[str, Mapping[str, str]] = {}
        self._ending, self._resting = threading.Event(), threading.Event()
        self._lock = threading.Lock()  # over a look at all pods
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kubelets")
        self._run_through = self._executor.submit(self._run)

    def add(
        self,
        name: str,
        labels: Mapping[str, str],
        has: Mapping[str, str],
        taints: Sequence[Mapping[str, str]] = (),
    ) -> None:
        """Makes a node that is ready.

        Args:
            name: Its name.
            labels: That pods choose it by.
            has: Resources besides processors, memory and places for pods.
            taints: That pods have to tolerate.
        """
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {**PART, **labels}},
            "spec": {"taints": list(taints)},
        }
        apply(node)
        self._nodes[name] = {"cpu": "96", "memory": "384Gi", "pods": "50", **has}
        self._beat(name)

    def rest(self) -> None:
        """Lets everything be as it is from now on."""
        with self._lock:
            self._resting.set()

    def close(self) -> None:
        """Takes the nodes away.

        Raises:
            Exception: whatever ended the thread before.
        """
        self._ending.set()
        self._executor.shutdown()
        for name in self._nodes:
            delete({"kind": "Node", "metadata": {"name": name}})
        self._run_through.result()

    def _run(self) -> None:
        beat_s = time.monotonic()
        while not self._ending.wait(PAUSE_S):
            if time.monotonic() - beat_s > HEARTBEAT_S:
                beat_s = time.monotonic()
                for name in list(self._nodes):
                    self._beat(name)
            with self._lock:
                if not self._resting.is_set():
                    for pod in self._cluster.objects("v1", "Pod", self._namespace):
                        self._tend(pod)

    def _tend(self, pod: Manifest) -> None:
        if pod["spec"].get("nodeName") not in self._nodes:
            return
        if "deletionTimestamp" in pod["metadata"]:
            delete({**pod, "kind": "Pod"}, "--grace-period=0", "--force")
        elif pod["status"].get("phase", "Pending") == "Pending":
            of_job = any(each["kind"] == "Job" for each in pod["metadata"]["ownerReferences"])
            self._report(pod, ended=of_job)

    def _report(self, pod: Manifest, *, ended: bool) -> None:
        """Says that a pod is ready, or that all of it has ended."""
        phase, state = "Running", {"running": {"startedAt": _now()}}
        if ended:
            phase = "Failed" if self._exit_code else "Succeeded"
            times = {"startedAt": _now(), "finishedAt": _now()}
            state = {"terminated": {"exitCode": self._exit_code, **times}}
        boxes = [
            {
                "name": each["name"],
                "image": each["image"],
                "imageID": "",
                "ready": not ended,
                "restartCount": 0,
                "state": state,
            }
            for each in pod["spec"]["containers"]
        ]
        address = f"10.77.0.{next(self._addresses)}"
        ready = {"status": "False" if ended else "True", "lastTransitionTime": _now()}
        status = {
            "phase": phase,
            "startTime": _now(),
            "podIP": address,
            "podIPs": [{"ip": address}],
            "containerStatuses": boxes,
            "conditions": [{"type": kind, **ready} for kind in ("Ready", "ContainersReady")],
        }
        patch_status("pod", pod["metadata"]["name"], status, "-n", self._namespace)

    def _beat(self, name: str) -> None:
        has = self._nodes[name]
        condition = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
        condition["lastHeartbeatTime"] = _now()
        status = {"capacity": has, "allocatable": has, "conditions": [condition]}
        patch_status("node", name, status)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
