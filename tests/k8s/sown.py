"""An overlay into which tests seed mistakes."""

from typing import Any

from k8s.checks.objects import Objects
from k8s.checks.rendering import Manifest


class Sown:
    """An overlay's objects, to be spoilt."""

    def __init__(self, manifests: list[Manifest]) -> None:
        self.manifests = manifests

    def spec(self, kind: str, name: str) -> dict[str, Any]:
        found = Objects(self.manifests).named(kind, name)
        assert found is not None
        spec: dict[str, Any] = found["spec"]
        return spec

    def pod(self, name: str, kind: str = "Deployment") -> dict[str, Any]:
        pod: dict[str, Any] = self.spec(kind, name)["template"]["spec"]
        return pod

    def box(self, name: str, kind: str = "Deployment") -> dict[str, Any]:
        box: dict[str, Any] = self.pod(name, kind)["containers"][0]
        return box

    def variable(self, name: str, variable: str, kind: str = "Deployment") -> dict[str, Any]:
        return next(each for each in self.box(name, kind)["env"] if each["name"] == variable)

    def mount(self, name: str, volume: str) -> dict[str, Any]:
        return next(each for each in self.box(name)["volumeMounts"] if each["name"] == volume)

    def backend(self) -> dict[str, Any]:
        """Service and port of the ingress's first path."""
        (rule,) = self.spec("Ingress", "gateway")["rules"]
        backend: dict[str, Any] = rule["http"]["paths"][0]["backend"]["service"]
        return backend

    def without(self, kind: str, name: str) -> None:
        self.manifests[:] = [
            each
            for each in self.manifests
            if (each["kind"], each["metadata"]["name"]) != (kind, name)
        ]

    def also(self, kind: str, name: str, **changes: Any) -> None:
        found = Objects(self.manifests).named(kind, name)
        assert found is not None
        self.manifests.append({**found, **changes})
