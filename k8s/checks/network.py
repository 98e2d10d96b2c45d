"""Network policies: they allow exactly the calls of the call graph, pod by pod."""

from collections.abc import Iterator

from k8s.checks.objects import Objects, Workload, selects, title
from k8s.checks.rendering import Manifest


def policies_allow_the_call_graph_and_no_more(objects: Objects) -> Iterator[str]:
    """The orchestrator calls each stage's port "grpc"; no other pod of ours calls another."""
    policies = objects.of("NetworkPolicy")
    if not policies:
        return
    pods = list(objects.workloads())
    for pod in pods:
        for direction in ("Ingress", "Egress"):
            if not _governing(policies, pod, direction):
                yield f"{pod.title}: no NetworkPolicy governs its {direction.lower()}"
    for caller in pods:
        for callee in pods:
            calls = caller.component == "orchestrator" and callee.component == "stage"
            for name, port in _ports(callee):
                wanted = calls and name == "grpc"
                allowed = _allows(policies, caller, callee, port)
                if allowed and not wanted:
                    yield f"{caller.title} may call {callee.title} at port {port}, and never does"
                if wanted and not allowed:
                    yield f"{caller.title} may not call {callee.title} at port {port}, and has to"


def policies_govern_somebody(objects: Objects) -> Iterator[str]:
    """A policy with a misspelt label is no error: it selects no pod."""
    for policy in objects.of("NetworkPolicy"):
        if not objects.selected(policy["spec"]["podSelector"]):
            yield f"{title(policy)}: governs no pods"


def _ports(workload: Workload) -> list[tuple[str, int]]:
    return [
        (port.get("name", ""), port["containerPort"])
        for box in workload.containers
        for port in box.get("ports", ())
    ]


def _governing(policies: list[Manifest], pod: Workload, direction: str) -> list[Manifest]:
    return [
        policy
        for policy in policies
        if direction in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], pod.labels)
    ]


def _allows(policies: list[Manifest], caller: Workload, callee: Workload, port: int) -> bool:
    """Both sides must allow it: the caller's egress and the callee's ingress."""
    for pod, direction, peers, other in (
        (caller, "Egress", "to", callee),
        (callee, "Ingress", "from", caller),
    ):
        rules = [
            rule
            for policy in _governing(policies, pod, direction)
            for rule in policy["spec"].get(direction.lower(), ())
        ]
        if not any(_names(rule, peers, other, port) for rule in rules):
            return False
    return True


def _names(rule: Manifest, peers: str, other: Workload, port: int) -> bool:
    """Whether a rule names a pod of this namespace and a port; no list at all names everything."""
    ports, listed = rule.get("ports"), rule.get(peers)
    if ports is not None and port not in {entry.get("port", port) for entry in ports}:
        return False
    return listed is None or any(
        "podSelector" in peer
        and "namespaceSelector" not in peer
        and selects(peer["podSelector"], other.labels)
        for peer in listed
    )
