"""Rendered objects, with the few questions that the checks ask of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from k8s.checks.rendering import Manifest

CLUSTER_WIDE = frozenset(
    {
        "Namespace",
        "PersistentVolume",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }
)


def title(manifest: Manifest) -> str:
    """Returns what messages call an object: "Deployment/base"."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Returns whether a label selector, with matchLabels and matchExpressions, selects labels."""
    if any(labels.get(name) != value for name, value in selector.get("matchLabels", {}).items()):
        return False
    for expression in selector.get("matchExpressions", ()):
        value, operator = labels.get(expression["key"]), expression["operator"]
        holds = {
            "In": value in expression.get("values", ()),
            "NotIn": value not in expression.get("values", ()),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[operator]
        if not holds:
            return False
    return True


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What makes pods: a Deployment, a Job, or one job of a JobSet.

    Attributes:
        manifest: The object itself.
        title: What messages call it.
        spec: Its own spec, such as a Deployment's with replicas.
        template: Of its pods.
    """

    manifest: Manifest
    title: str
    spec: Mapping[str, Any]
    template: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """Such as "Deployment"."""
        return str(self.manifest["kind"])

    @property
    def name(self) -> str:
        """Such as "base"."""
        return str(self.manifest["metadata"]["name"])

    @property
    def labels(self) -> Mapping[str, str]:
        """Of its pods."""
        labels: Mapping[str, str] = self.template.get("metadata", {}).get("labels", {})
        return labels

    @property
    def pod(self) -> Mapping[str, Any]:
        """The spec of its pods."""
        pod: Mapping[str, Any] = self.template["spec"]
        return pod

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        """Of its pods, those that start before the others included."""
        return [*self.pod.get("initContainers", ()), *self.pod["containers"]]

    @property
    def component(self) -> str:
        """What it is to Muse: "stage", "orchestrator", "compile-job", "training" or ""."""
        return self.labels.get("app.kubernetes.io/component", "")

    def chips(self, resource: str) -> int:
        """Returns how many of an extended resource each of its pods asks for."""
        return sum(
            int(container.get("resources", {}).get("limits", {}).get(resource, 0))
            for container in self.containers
        )


def environment(container: Mapping[str, Any]) -> dict[str, str | None]:
    """Returns a container's variables; those that are not plain values as None."""
    return {entry["name"]: entry.get("value") for entry in container.get("env", ())}


@dataclass(frozen=True)
class Objects:
    """All objects of one overlay.

    Attributes:
        all: In the order they were rendered.
    """

    all: list[Manifest]

    def of(self, kind: str) -> list[Manifest]:
        """Returns the objects of one kind."""
        return [manifest for manifest in self.all if manifest["kind"] == kind]

    def named(self, kind: str, name: str) -> Manifest | None:
        """Returns one object, if it is there."""
        return next((each for each in self.of(kind) if each["metadata"]["name"] == name), None)

    def workloads(self) -> Iterator[Workload]:
        """Yields everything that makes pods."""
        for manifest in self.all:
            if manifest["kind"] in ("Deployment", "Job"):
                spec = manifest["spec"]
                yield Workload(
                    manifest=manifest, title=title(manifest), spec=spec, template=spec["template"]
                )
            elif manifest["kind"] == "JobSet":
                for job in manifest["spec"]["replicatedJobs"]:
                    spec = job["template"]["spec"]
                    yield Workload(
                        manifest=manifest,
                        title=f"{title(manifest)}/{job['name']}",
                        spec=spec,
                        template=spec["template"],
                    )

    def selected(self, selector: Mapping[str, Any]) -> list[Workload]:
        """Returns the workloads whose pods a label selector selects."""
        return [each for each in self.workloads() if selects(selector, each.labels)]
