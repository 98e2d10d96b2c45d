"""Rendered objects, with the few questions that checks ask of them, and what makes a check."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kubernetes import utils

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


def at(tree: Mapping[str, Any], path: str, default: Any = None) -> Any:
    """Returns what is at a dotted path of names, or the default if one of them is not there."""
    for name in path.split("."):
        if name not in tree:
            return default
        tree = tree[name]
    return tree


def amount(quantity: str | int | float) -> float:
    """Returns a quantity, such as "500m" or "16Gi", as a number: cores, or bytes.

    Raises:
        ValueError: it is none.
    """
    try:
        return float(utils.parse_quantity(quantity))
    except ValueError:
        raise ValueError(f"expected an amount such as 500m, 2 or 16Gi, got {quantity!r}") from None


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Returns whether a label selector, with matchLabels and matchExpressions, selects labels."""
    if not selector.get("matchLabels", {}).items() <= labels.items():
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


class Workload:
    """What makes pods: a Deployment, a Job, or one job of a JobSet.

    Attributes:
        title: What messages call it.
        kind: Such as "Deployment".
        name: Such as "base".
        spec: Its own spec, such as a Deployment's with replicas.
        objects: All objects of the overlay.
        pod: The spec of its pods.
        labels: Of its pods.
        node_selector: Labels of the nodes that its pods may run on.
        account: The service account of its pods.
        component: What it is to Muse: "stage", "orchestrator", "gateway", "compile-job",
            "training" or "".
        containers: Of its pods, those that start before the others included.
        ports: Of all its containers.
        mounts: Of all its containers.
        volumes: Of its pods, by name.
    """

    def __init__(self, manifest: Manifest, spec: Manifest, objects: "Objects", part: str = ""):
        self.title, self.kind = title(manifest) + part, str(manifest["kind"])
        self.name, self.spec, self.objects = str(manifest["metadata"]["name"]), spec, objects
        self.pod: Manifest = spec["template"]["spec"]
        self.labels: dict[str, str] = at(spec, "template.metadata.labels", {})
        self.node_selector: dict[str, str] = self.pod.get("nodeSelector", {})
        self.account: str = self.pod.get("serviceAccountName", "default")
        self.component = self.labels.get("app.kubernetes.io/component", "")
        boxes = [*self.pod.get("initContainers", ()), *self.pod["containers"]]
        self.containers: list[Manifest] = boxes
        self.ports: list[Manifest] = [each for box in boxes for each in box.get("ports", ())]
        self.mounts = [each for box in boxes for each in box.get("volumeMounts", ())]
        self.volumes = {each["name"]: each for each in self.pod.get("volumes", ())}

    def chips(self, resource: str) -> int:
        """Returns how many of an extended resource each of its pods asks for."""
        limits = [at(container, "resources.limits", {}) for container in self.containers]
        return sum(int(each.get(resource, 0)) for each in limits)


def environment(container: Mapping[str, Any]) -> dict[str, str | None]:
    """Returns a container's variables; those that are not plain values as None."""
    return {entry["name"]: entry.get("value") for entry in container.get("env", ())}


@dataclass(frozen=True)
class Objects:
    """All objects of one overlay, in the order they were rendered."""

    all: list[Manifest]

    def of(self, *kinds: str) -> list[Manifest]:
        """Returns the objects of some kinds, kind by kind."""
        return [manifest for kind in kinds for manifest in self.all if manifest["kind"] == kind]

    def named(self, kind: str, name: str) -> Manifest | None:
        """Returns one object, if it is there."""
        return next((each for each in self.of(kind) if each["metadata"]["name"] == name), None)

    def workloads(self, *kinds: str) -> Iterator[Workload]:
        """Yields everything that makes pods, or what of it is of some kinds."""
        for manifest in self.all:
            kind = manifest["kind"]
            if kinds and kind not in kinds:
                continue
            if kind in ("Deployment", "Job"):
                yield Workload(manifest, manifest["spec"], self)
            elif kind == "JobSet":
                for job in manifest["spec"]["replicatedJobs"]:
                    yield Workload(manifest, job["template"]["spec"], self, f"/{job['name']}")

    def selected(self, selector: Mapping[str, Any]) -> list[Workload]:
        """Returns the workloads whose pods a label selector selects."""
        return [each for each in self.workloads() if selects(selector, each.labels)]


@dataclass(frozen=True)
class Check:
    """A check, which yields a line for each mistake; a decorator of such a function, too."""

    lines: Callable[[Objects], Iterator[str]]


def check_workloads(
    *kinds: str, component: str = ""
) -> Callable[[Callable[[Workload], Iterator[str]]], Check]:
    """Makes a check of each workload of some kinds, or of all; its title begins each line."""

    def make(function: Callable[[Workload], Iterator[str]]) -> Check:
        def lines(objects: Objects) -> Iterator[str]:
            for each in objects.workloads(*kinds):
                if component in ("", each.component):
                    yield from (f"{each.title}: {line}" for line in function(each))

        return Check(lines)

    return make
