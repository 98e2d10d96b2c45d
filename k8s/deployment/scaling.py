"""Another number of replicas, where nobody else sets it and where there are chips for it."""

from collections.abc import Iterator

from k8s.checks import chips
from k8s.checks.objects import Objects
from k8s.checks.quantities import amount
from k8s.checks.rendering import Manifest
from k8s.deployment.cluster import FORBIDDEN, Cluster, Refused

KEDA = ("keda.sh/v1alpha1", "ScaledObject")


def scale(cluster: Cluster, namespace: str, deployment: Manifest, replicas: int) -> list[str]:
    """Sets how many replicas a Deployment has.

    Args:
        cluster: Where it is.
        namespace: Of the Deployment.
        deployment: As the server has it now.
        replicas: From 0 up.

    Returns:
        What is worth knowing, a line each: such as that the pool has fewer chips now.

    Raises:
        ValueError: an autoscaler sets the number, or there are not that many chips; says which.
    """
    name = deployment["metadata"]["name"]
    if replicas < 0:
        raise ValueError(f"replicas: expected 0 or more, got {replicas}")
    owner = _owner(cluster, namespace, name)
    if owner is not None:
        raise ValueError(
            f"{name}: {owner} sets its replicas and would set them back: change its bounds in the "
            "overlay, then `muse deploy apply`"
        )
    notes = [
        note
        for resource in (chips.TPU, chips.GPU)
        for note in _check_chips(cluster, namespace, deployment, replicas, resource)
    ]
    cluster.scale(namespace, name, replicas)
    return notes


def _owner(cluster: Cluster, namespace: str, name: str) -> str | None:
    """Returns who sets the replicas of a Deployment, in words."""
    for each in cluster.objects("autoscaling/v2", "HorizontalPodAutoscaler", namespace):
        spec, metadata = each["spec"], each["metadata"]
        if spec["scaleTargetRef"]["name"] == name:
            for owner in metadata.get("ownerReferences", ()):
                if owner["kind"] == "ScaledObject":
                    return f"ScaledObject/{owner['name']} (KEDA)"
            return (
                f"HorizontalPodAutoscaler/{metadata['name']} ({spec.get('minReplicas', 1)} to "
                f"{spec['maxReplicas']})"
            )
    if cluster.knows(*KEDA):
        for each in cluster.objects(*KEDA, namespace):
            if each["spec"]["scaleTargetRef"]["name"] == name:
                return f"ScaledObject/{each['metadata']['name']} (KEDA)"
    return None


def _check_chips(
    cluster: Cluster, namespace: str, deployment: Manifest, replicas: int, resource: str
) -> Iterator[str]:
    """Yields what is worth knowing of the chips of a resource that the replicas would take.

    Raises:
        ValueError: a quota of the namespace has fewer.
    """
    (workload,) = Objects([deployment]).workloads()
    per_pod = workload.chips(resource)
    more = (replicas - deployment["spec"].get("replicas", 1)) * per_pod
    if not per_pod or more <= 0:
        return
    name = deployment["metadata"]["name"]
    for quota in cluster.objects("v1", "ResourceQuota", namespace):
        status = quota.get("status", {})
        hard = status.get("hard", {}).get(f"requests.{resource}")
        used = amount(status.get("used", {}).get(f"requests.{resource}", 0))
        if hard is not None and used + more > amount(hard):
            raise ValueError(
                f"{name}: {replicas} replicas want {more} more of {resource}, and "
                f"ResourceQuota/{quota['metadata']['name']} has {amount(hard) - used:g} of "
                f"{amount(hard):g} left"
            )
    selector = ",".join(
        f"{label}={value}" for label, value in workload.pod.get("nodeSelector", {}).items()
    )
    try:
        nodes = cluster.objects("v1", "Node", labelSelector=selector)
    except Refused as error:
        if error.status == FORBIDDEN:
            yield f"{name}: whether its pool has the chips is not known: you may not list nodes"
            return
        raise
    has = sum(amount(each["status"]["allocatable"].get(resource, 0)) for each in nodes)
    if replicas * per_pod > has:
        yield (
            f"{name}: {replicas} replicas want {replicas * per_pod} of {resource}, and its pool "
            f"has {has:g} on {len(nodes)} nodes now: the rest waits for the pool to grow"
        )
