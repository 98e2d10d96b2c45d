"""What is there: Deployments, autoscalers, and the pods that are not ready."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from k8s.checks.rendering import Manifest
from k8s.deployment.cluster import Cluster
from k8s.deployment.failures import Failure, failures, pods_of
from k8s.deployment.overlays import Overlay
from k8s.deployment.rollouts import Rollout, rollout

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400


@dataclass(frozen=True, kw_only=True)
class DeploymentStatus:
    """One Deployment and its pods.

    Attributes:
        rollout: How far it is.
        image: Of its first container.
        restarts: Of all its pods' containers.
        age_s: Since it was made.
    """

    rollout: Rollout
    image: str
    restarts: int
    age_s: float


@dataclass(frozen=True, kw_only=True)
class SystemStatus:
    """Everything that an overlay deploys.

    Attributes:
        deployments: In the order of their names.
        missing: Names of Deployments that the overlay has and the cluster has not.
        autoscalers: HorizontalPodAutoscalers of the namespace; KEDA makes some, too.
        failures: Why pods are not ready.
    """

    deployments: Sequence[DeploymentStatus]
    missing: Sequence[str]
    autoscalers: Sequence[Manifest]
    failures: Sequence[Failure]

    @property
    def ready(self) -> bool:
        """Whether every Deployment runs what was applied, with all its replicas."""
        return not self.missing and all(not each.rollout.state for each in self.deployments)


def system_status(cluster: Cluster, overlay: Overlay) -> SystemStatus:
    """Asks a cluster how an overlay's Deployments are."""
    namespace = overlay.namespace
    names = {each["metadata"]["name"] for each in overlay.deployments}
    deployments = [
        each
        for each in cluster.objects("apps/v1", "Deployment", namespace)
        if each["metadata"]["name"] in names
    ]
    deployments.sort(key=lambda each: str(each["metadata"]["name"]))
    pods = cluster.objects("v1", "Pod", namespace)
    return SystemStatus(
        deployments=[_status(each, pods) for each in deployments],
        missing=sorted(names - {each["metadata"]["name"] for each in deployments}),
        autoscalers=cluster.objects("autoscaling/v2", "HorizontalPodAutoscaler", namespace),
        failures=failures(cluster, namespace, deployments, pods),
    )


def deployments_table(status: SystemStatus) -> Table:
    """Returns a row for each Deployment: ready and wanted replicas, image, restarts, age."""
    table = Table("service", "ready", "image", "restarts", "age", "waits for")
    for each in status.deployments:
        table.add_row(
            each.rollout.name,
            f"{each.rollout.ready}/{each.rollout.wanted}",
            each.image,
            str(each.restarts),
            age(each.age_s),
            each.rollout.state,
        )
    for name in status.missing:
        table.add_row(name, "0/?", "", "", "", "is not there: `muse deploy apply`")
    return table


def autoscalers_table(autoscalers: Sequence[Manifest]) -> Table:
    """Returns a row for each autoscaler: its bounds, what it wants, and what hinders it."""
    table = Table("autoscaler", "replicas", "bounds", "metrics", "problem")
    for each in autoscalers:
        spec, status = each["spec"], each.get("status", {})
        problems = [
            condition.get("message", "")
            for condition in status.get("conditions", ())
            if (condition["type"], condition["status"])
            in (("ScalingActive", "False"), ("AbleToScale", "False"))
        ]
        table.add_row(
            f"{each['metadata']['name']} -> {spec['scaleTargetRef']['name']}",
            f"{status.get('currentReplicas', 0)}, wants {status.get('desiredReplicas', 0)}",
            f"{spec.get('minReplicas', 1)} to {spec['maxReplicas']}",
            ", ".join(_metric(metric) for metric in spec.get("metrics", ())),
            "; ".join(problems),
        )
    return table


def age(seconds: float) -> str:
    """Returns an age as kubectl says it: "42s", "5m", "3h", "12d"."""
    for unit, letter in ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "m")):
        if seconds >= unit:
            return f"{seconds // unit:.0f}{letter}"
    return f"{max(seconds, 0):.0f}s"


def _status(deployment: Manifest, pods: Sequence[Manifest]) -> DeploymentStatus:
    made = datetime.fromisoformat(deployment["metadata"]["creationTimestamp"])
    return DeploymentStatus(
        rollout=rollout(deployment),
        image=deployment["spec"]["template"]["spec"]["containers"][0]["image"],
        restarts=sum(
            box.get("restartCount", 0)
            for pod in pods_of(deployment, pods)
            for box in pod.get("status", {}).get("containerStatuses", ())
        ),
        age_s=(datetime.now(UTC) - made).total_seconds(),
    )


def _metric(metric: Mapping[str, Any]) -> str:
    """Returns what one metric of an autoscaler is about, and its target."""
    kind = metric["type"][0].lower() + metric["type"][1:]
    inside = metric.get(kind, {})
    name = inside.get("name") or inside.get("metric", {}).get("name", "")
    target = inside.get("target", {})
    value = next(
        (target[key] for key in ("averageUtilization", "averageValue", "value") if key in target),
        "",
    )
    return f"{name} {value}{'%' if 'averageUtilization' in target else ''}".strip()
