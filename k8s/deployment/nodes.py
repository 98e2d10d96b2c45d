"""Chips that an overlay's pods request against those that a live cluster's nodes have."""

from collections.abc import Iterator

from k8s.checks.chips import PLATFORMS
from k8s.checks.objects import Objects, Workload, amount
from k8s.checks.rendering import Manifest


def node_mistakes(manifests: list[Manifest], nodes: list[Manifest]) -> list[str]:
    """Returns which workloads the nodes cannot hold, one line each.

    A node pool that scales to zero has no node to look at: its line says so, for the reader to
    know whether the pool may grow.
    """
    return [
        f"{workload.title}: {line}"
        for workload in Objects(manifests).workloads()
        for resource in PLATFORMS
        if workload.chips(resource)
        for line in _mistakes(workload, resource, nodes)
    ]


def _mistakes(workload: Workload, resource: str, nodes: list[Manifest]) -> Iterator[str]:
    selector, per_pod = workload.node_selector, workload.chips(resource)
    replicas = workload.spec.get("replicas", 1) if workload.kind == "Deployment" else 0
    pool = [each for each in nodes if selector.items() <= each["metadata"]["labels"].items()]
    allocatable = [int(amount(each["status"]["allocatable"].get(resource, 0))) for each in pool]
    places = sum(each // per_pod for each in allocatable)
    labels = ", ".join(f"{name}={value}" for name, value in selector.items()) or "any label"
    if not pool:
        yield f"no node has {labels}: expected a pool that has, or may grow one"
    elif max(allocatable) < per_pod:
        yield (
            f"a pod requests {per_pod} {resource}, the largest node with {labels} has "
            f"{max(allocatable)}"
        )
    elif replicas > places:
        yield (
            f"{replicas} replicas request {per_pod} {resource} each, the {len(pool)} nodes with "
            f"{labels} have room for {places}: expected a pool that may grow, or fewer replicas"
        )
