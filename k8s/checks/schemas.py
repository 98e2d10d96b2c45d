"""Strict schemas: every field is one that exists, of the type it must have."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from kubernetes import client

from k8s.checks.objects import title
from k8s.checks.rendering import Manifest

VERSION = "1.35"  # of the API that the manifests are written for
OWN = Path(__file__).parent / "schemas"  # of custom resources


@cache
def _own_schema(kind: str) -> jsonschema.protocols.Validator | None:
    file = OWN / f"{kind}.yaml"
    if not file.is_file():
        return None
    schema = yaml.safe_load(file.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def schema_mistakes(manifests: list[Manifest]) -> list[str]:
    """Returns what the schemas say of each object, one line each."""
    return [
        f"{title(manifest)}: {message}" for manifest in manifests for message in _mistakes(manifest)
    ]


def _mistakes(manifest: Manifest) -> Iterator[str]:
    own = _own_schema(manifest["kind"])
    if own is not None:
        for error in own.iter_errors(manifest):
            yield f"{error.json_path}: {error.message}"
        for inner in _inside(manifest):
            yield from _mistakes(inner)
        return
    try:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        path = ".".join(map(str, error.path))
        yield f"$.{path}: {error.message}"
        return
    except kubernetes_validate.SchemaNotFoundError:
        yield f"Kubernetes {VERSION} has no {manifest['apiVersion']} {manifest['kind']}"
        return
    yield from _typed_mistakes(manifest)


def _inside(manifest: Manifest) -> Iterator[Manifest]:
    """Yields the objects of Kubernetes itself that a custom one holds a piece of."""
    metadata = {"name": manifest["metadata"]["name"]}
    if manifest["kind"] == "JobSet":
        for job in manifest["spec"]["replicatedJobs"]:
            yield {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, **job["template"]}
    if manifest["kind"] == "ScaledObject":
        spec = manifest["spec"]
        config = spec.get("advanced", {}).get("horizontalPodAutoscalerConfig", {})
        yield {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": metadata,
            "spec": {
                "scaleTargetRef": {"kind": "Deployment", **spec["scaleTargetRef"]},
                "maxReplicas": spec.get("maxReplicaCount", 100),
                **config,
            },
        }


def _typed_mistakes(manifest: Manifest) -> Iterator[str]:
    """Reads an object into the client's model, which demands what schemas leave optional."""
    name = manifest["apiVersion"].rpartition("/")[2].capitalize() + manifest["kind"]
    model: Any = getattr(client, name)
    try:
        model.from_dict(manifest)
    except ValueError as error:
        yield f"{name}: {error}"
