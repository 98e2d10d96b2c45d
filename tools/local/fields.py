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
# Fields by kind, and by the field that they are in; all that is in one of them counts, too.
UNDERSTOOD = {
    "Service": {"spec": "clusterIP selector ports[].name ports[].port ports[].targetPort"},
    "Deployment": {
        "spec": "replicas template.metadata.labels",
        "spec.template.spec": """
            terminationGracePeriodSeconds
            volumes[].name volumes[].emptyDir volumes[].persistentVolumeClaim.claimName
        """,
        "spec.template.spec.containers[]": """
            name command args env[].name env[].value env[].valueFrom.fieldRef
            ports[].name ports[].containerPort ports[].protocol
            lifecycle.preStop.sleep.seconds volumeMounts[].name volumeMounts[].mountPath
        """,
        **{
            f"spec.template.spec.containers[].{probe}Probe": """
                grpc.port grpc.service httpGet.port httpGet.path initialDelaySeconds
                periodSeconds timeoutSeconds successThreshold failureThreshold
            """
            for probe in ("startup", "readiness", "liveness")
        },
    },
}
# Nothing is rolled out, there is one node, `python` is this interpreter with its packages, and
# processes run as the caller, with all that this machine has.
WITHOUT_EFFECT = {
    "Service": {"spec": "ports[].appProtocol ports[].protocol"},
    "Deployment": {
        "spec": "selector strategy progressDeadlineSeconds revisionHistoryLimit",
        "spec.template.spec": """
            automountServiceAccountToken enableServiceLinks securityContext serviceAccountName
            topologySpreadConstraints volumes[].persistentVolumeClaim.readOnly
        """,
        "spec.template.spec.containers[]": """
            image resources securityContext volumeMounts[].readOnly
        """,
    },
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
    known = ["apiVersion", "kind", "metadata"]
    for table in (UNDERSTOOD[kind], WITHOUT_EFFECT[kind]):
        known += [f"{outer}.{field}" for outer, text in table.items() for field in text.split()]
    for path in _leaves(manifest, ""):
        general = re.sub(r"\[\d+\]", "[]", path)
        if not any(
            general == each or general.startswith((f"{each}.", f"{each}[")) for each in known
        ):
            raise ManifestError(
                f"{title(manifest)}: {path}: the local runner does not understand this field"
            )


def _leaves(value: object, path: str) -> Iterator[str]:
    """Yields the paths of all leaves."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _leaves(part, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _leaves(part, f"{path}[{index}]")
    else:
        yield path
