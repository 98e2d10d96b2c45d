"""Fields of manifests that the local runner understands; any other field is an error."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

Manifest = Mapping[str, Any]

KINDS_WITHOUT_EFFECT = frozenset(
    {
        "Namespace",
        "NetworkPolicy",  # not enforced: processes of one machine reach each other
        "PersistentVolume",  # --checkpoints and MUSE_COMPILATION_CACHE give the folders of claims
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "ServiceAccount",
    }
)
_POD = "spec.template.spec."
_CONTAINER = _POD + "containers[]."
_PROBE = (
    *("grpc.port", "grpc.service", "initialDelaySeconds", "periodSeconds", "timeoutSeconds"),
    *("successThreshold", "failureThreshold"),
)
_ANYWHERE = ("apiVersion", "kind", "metadata")
UNDERSTOOD = {
    "Service": frozenset(
        {"spec.clusterIP", "spec.selector", "spec.ports[].name", "spec.ports[].port"}
        | {"spec.ports[].targetPort"}
    ),
    "Deployment": frozenset(
        {
            "spec.replicas",
            "spec.template.metadata.labels",
            _POD + "terminationGracePeriodSeconds",
            _POD + "volumes[].name",
            _POD + "volumes[].emptyDir",
            _POD + "volumes[].persistentVolumeClaim.claimName",
            _CONTAINER + "name",
            _CONTAINER + "command[]",
            _CONTAINER + "args[]",
            _CONTAINER + "env[].name",
            _CONTAINER + "env[].value",
            _CONTAINER + "env[].valueFrom.fieldRef.apiVersion",
            _CONTAINER + "env[].valueFrom.fieldRef.fieldPath",
            _CONTAINER + "ports[].name",
            _CONTAINER + "ports[].containerPort",
            _CONTAINER + "ports[].protocol",
            _CONTAINER + "lifecycle.preStop.sleep.seconds",
            _CONTAINER + "volumeMounts[].name",
            _CONTAINER + "volumeMounts[].mountPath",
            *(
                _CONTAINER + f"{probe}Probe.{field}"
                for probe in ("startup", "readiness", "liveness")
                for field in _PROBE
            ),
        }
    ),
}
WITHOUT_EFFECT = {
    "Service": ("spec.ports[].appProtocol", "spec.ports[].protocol"),
    "Deployment": (
        "spec.selector",
        "spec.strategy",  # nothing is rolled out
        "spec.progressDeadlineSeconds",
        "spec.revisionHistoryLimit",
        _POD + "automountServiceAccountToken",
        _POD + "enableServiceLinks",
        _POD + "securityContext",  # not enforced: processes run as the caller
        _POD + "serviceAccountName",
        _POD + "topologySpreadConstraints",  # there is one node
        _POD + "volumes[].persistentVolumeClaim.readOnly",
        _CONTAINER + "image",  # `python` is this interpreter, with its packages
        _CONTAINER + "resources",  # not enforced
        _CONTAINER + "securityContext",
        _CONTAINER + "volumeMounts[].readOnly",
    ),
}


class ManifestError(ValueError):
    """A manifest that the local runner cannot run; the message names object and field."""


def title(manifest: Manifest) -> str:
    """Returns kind and name of an object: "Deployment/base"."""
    return f"{manifest.get('kind')}/{manifest.get('metadata', {}).get('name')}"


def check_fields(manifest: Manifest) -> None:
    """Checks that every field of an object is understood, or has no effect.

    Raises:
        ManifestError: the kind or a field is unknown; the message has its path.
    """
    kind = str(manifest.get("kind"))
    if kind in KINDS_WITHOUT_EFFECT:
        return
    if kind not in UNDERSTOOD:
        expected = sorted(UNDERSTOOD.keys() | KINDS_WITHOUT_EFFECT)
        raise ManifestError(f"{title(manifest)}: kind: expected one of {expected}")
    understood = UNDERSTOOD[kind]
    ignored = (*_ANYWHERE, *WITHOUT_EFFECT[kind])
    for path in _leaves(manifest, "", understood):
        general = re.sub(r"\[\d+\]", "[]", path)
        if general in understood or any(_within(general, each) for each in ignored):
            continue
        raise ManifestError(
            f"{title(manifest)}: {path}: the local runner does not understand this field"
        )


def _within(path: str, of: str) -> bool:
    return path == of or path.startswith((f"{of}.", f"{of}["))


def _leaves(value: object, path: str, whole: frozenset[str]) -> Iterator[str]:
    """Yields the paths of all leaves; a path in `whole` counts as a leaf."""
    if re.sub(r"\[\d+\]", "[]", path) in whole:
        yield path
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _leaves(part, f"{path}.{name}" if path else name, whole)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _leaves(part, f"{path}[{index}]", whole)
    else:
        yield path
