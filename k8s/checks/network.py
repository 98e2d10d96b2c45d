"""Network policies: they allow exactly the calls of the call graph, pod by pod."""

from collections.abc import Iterator
from itertools import product

from k8s.checks.objects import Check, Objects, Workload, selects, title
from k8s.checks.rendering import Manifest

PEERS = {"Ingress": "from", "Egress": "to"}
CALLEES = {"gateway": "orchestrator", "orchestrator": "stage"}  # components, by their caller's


@Check
def policies_allow_the_call_graph_and_no_more(objects: Objects) -> Iterator[str]:
    """Of our pods each of `CALLEES` calls its callees' port "grpc", and no other calls another."""
    if not objects.of("NetworkPolicy"):
        return
    pods = list(objects.workloads())
    for pod, direction in product(pods, PEERS):
        if not _governing(pod, direction):
            yield f"{pod.title}: no NetworkPolicy governs its {direction.lower()}"
    for caller, callee in product(pods, pods):
        calls = CALLEES.get(caller.component) == callee.component
        for port in callee.ports:
            number, wanted = port["containerPort"], calls and port.get("name", "") == "grpc"
            # Both sides must allow it: the caller's egress and the callee's ingress.
            allowed = _allows(caller, "Egress", callee, number) and _allows(
                callee, "Ingress", caller, number
            )
            if allowed and not wanted:
                yield f"{caller.title} may call {callee.title} at port {number}, and never does"
            if wanted and not allowed:
                yield f"{caller.title} may not call {callee.title} at port {number}, and has to"


@Check
def policies_govern_somebody(objects: Objects) -> Iterator[str]:
    """A policy with a misspelt label is no error: it selects no pod."""
    for policy in objects.of("NetworkPolicy"):
        if not objects.selected(policy["spec"]["podSelector"]):
            yield f"{title(policy)}: governs no pods"


def _governing(pod: Workload, direction: str) -> list[Manifest]:
    return [
        policy["spec"]
        for policy in pod.objects.of("NetworkPolicy")
        if direction in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], pod.labels)
    ]


def _allows(pod: Workload, direction: str, other: Workload, port: int) -> bool:
    """Returns whether a rule for a pod names another pod of this namespace, and a port."""
    return any(
        _names(rule, PEERS[direction], other, port)
        for spec in _governing(pod, direction)
        for rule in spec.get(direction.lower(), ())
    )


def _names(rule: Manifest, peers: str, other: Workload, port: int) -> bool:
    """Returns whether a rule names a pod and a port; no list at all names everything."""
    ports, listed = rule.get("ports"), rule.get(peers)
    if ports is not None and port not in {entry.get("port", port) for entry in ports}:
        return False
    return listed is None or any(
        "podSelector" in peer
        and "namespaceSelector" not in peer
        and selects(peer["podSelector"], other.labels)
        for peer in listed
    )
