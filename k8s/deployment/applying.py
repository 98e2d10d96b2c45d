"""Server-side apply: every object is tried before any is changed.

Source: Kubernetes documentation, "Server-Side Apply": who set a field owns it, and another's value
for it is a conflict, not an overwrite.
"""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from k8s.checks.objects import title
from k8s.checks.rendering import Manifest
from k8s.deployment.cluster import (
    NOT_FOUND,
    SCALE_MANAGER,
    Cluster,
    ClusterError,
    Refused,
    Unreachable,
)

CONFLICT, INVALID = 409, 422
FIRST = ("Namespace", "CustomResourceDefinition")  # others are in the one, or of the other
FIXED = ("Job", "PersistentVolume", "PersistentVolumeClaim")  # made once, as they are
ESTABLISHED_S, PAUSE_S = 30.0, 0.5

Outcome = Literal["created", "changed", "unchanged", "cannot be tried yet"]


class ApplyRefused(ClusterError):
    """The cluster would refuse some of the objects; nothing was changed.

    Attributes:
        problems: A line each.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__(
            f"the cluster refuses {len(problems)} of the objects, and nothing was changed"
        )
        self.problems = problems


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What became of an object.

    Attributes:
        title: Such as "Deployment/base".
        outcome: "cannot be tried yet": its namespace or its kind comes with the overlay itself.
    """

    title: str
    outcome: Outcome


def try_all(cluster: Cluster, manifests: list[Manifest], *, force: bool) -> list[Applied]:
    """Has the server try every object, admission included, and keeps nothing.

    Args:
        cluster: Where.
        manifests: The objects.
        force: As `Cluster.apply` has it.

    Returns:
        What would become of each.

    Raises:
        ApplyRefused: some would be refused; a line each, with field and other manager of conflicts.
        Unreachable: the server does not answer.
    """
    brought = {
        name
        for each in manifests
        if each["kind"] in FIRST
        for name in (each["metadata"]["name"], each.get("spec", {}).get("group"))
        if name
    }
    tried: list[Applied] = []
    problems: list[str] = []
    for each in _in_order(manifests):
        try:
            tried.append(_try(cluster, each, force=force))
        except Unreachable:
            raise
        except Refused as error:
            namespace = each["metadata"].get("namespace")
            if error.status == NOT_FOUND and namespace in brought:
                tried.append(Applied(title=title(each), outcome="cannot be tried yet"))
            else:
                problems += _explained(error, each)
        except ClusterError as error:  # it does not know the kind
            if each["apiVersion"].partition("/")[0] in brought:
                tried.append(Applied(title=title(each), outcome="cannot be tried yet"))
            else:
                problems.append(f"{title(each)}: {error}")
    if problems:
        raise ApplyRefused(problems)
    return tried


def apply_all(
    cluster: Cluster, manifests: list[Manifest], tried: list[Applied], *, force: bool
) -> Iterator[Applied]:
    """Applies every object, namespaces and definitions of kinds first.

    Args:
        cluster: Where.
        manifests: The objects.
        tried: What `try_all` has said of them.
        force: As `Cluster.apply` has it.

    Yields:
        What became of each, as it is done.

    Raises:
        ClusterError: one was refused after all; those before it are applied.
    """
    for each, foreseen in zip(_in_order(manifests), tried, strict=True):
        _, new = cluster.apply(each, force=force)
        if each["kind"] == "CustomResourceDefinition":
            _wait_until_established(cluster, each)
        if foreseen.outcome == "cannot be tried yet":
            foreseen = replace(foreseen, outcome="created" if new else "changed")
        yield foreseen


def _in_order(manifests: list[Manifest]) -> list[Manifest]:
    places = {kind: place for place, kind in enumerate(FIRST)}
    return sorted(manifests, key=lambda each: places.get(each["kind"], len(FIRST)))


def _try(cluster: Cluster, manifest: Manifest, *, force: bool) -> Applied:
    metadata = manifest["metadata"]
    before = cluster.get(
        manifest["apiVersion"], manifest["kind"], metadata.get("namespace"), metadata["name"]
    )
    after, new = cluster.apply(manifest, dry_run=True, force=force)
    outcome: Outcome = "created"
    if not new:
        outcome = "unchanged" if before is not None and _same(before, after) else "changed"
    return Applied(title=title(manifest), outcome=outcome)


def _same(before: Manifest, after: Manifest) -> bool:
    """Whether two states of an object differ in nothing that somebody asked for."""

    def asked_for(manifest: Manifest) -> Mapping[str, object]:
        metadata = {
            name: value
            for name, value in manifest["metadata"].items()
            if name not in ("managedFields", "resourceVersion", "generation")
        }
        return {**manifest, "metadata": metadata, "status": None}

    return asked_for(before) == asked_for(after)


def _explained(error: Refused, manifest: Manifest) -> Iterator[str]:
    """Yields a line for each field that conflicts, else one for the object."""
    conflicts = [each for each in error.causes if each.get("reason") == "FieldManagerConflict"]
    if error.status == CONFLICT and conflicts:
        for each in conflicts:
            found = re.search(r'conflict with "([^"]*)"', each.get("message", ""))
            manager = found[1] if found else "another manager"
            hint = " (`muse deploy scale`)" if manager == SCALE_MANAGER else ""
            yield (
                f"{title(manifest)}: {each.get('field', 'a field')} was set by {manager}{hint} to "
                "another value: say that one in the overlay, or take it over with --force-conflicts"
            )
    elif error.status == INVALID and manifest["kind"] in FIXED and "immutable" in str(error):
        metadata, kind = manifest["metadata"], manifest["kind"].lower()
        where = f"-n {metadata['namespace']} " if "namespace" in metadata else ""
        yield (
            f"{title(manifest)}: is still there, with other settings, and a {kind} cannot be "
            f"changed: `kubectl {where}delete {kind} {metadata['name']}`"
        )
    else:
        yield str(error)


def _wait_until_established(cluster: Cluster, definition: Manifest) -> None:
    name, end = definition["metadata"]["name"], time.monotonic() + ESTABLISHED_S
    while True:
        found = cluster.get(definition["apiVersion"], definition["kind"], None, name) or {}
        conditions = found.get("status", {}).get("conditions", ())
        if any(each["type"] == "Established" and each["status"] == "True" for each in conditions):
            return
        if time.monotonic() > end:
            raise ClusterError(f"{title(definition)}: not established after {ESTABLISHED_S:g} s")
        time.sleep(PAUSE_S)
