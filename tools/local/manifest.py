"""Deployments and Services of a rendered overlay, checked and reduced to what the runner needs."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from tools.local.fields import Manifest, ManifestError, check_fields, title

OVERLAY = "local-cpu.json"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A health probe, with the numbers of its manifest.

    Attributes:
        service: Name that it asks for over gRPC; None for a probe by HTTP.
        path: Path that it asks for over HTTP; None for a probe by gRPC.
    """

    port: int
    service: str | None
    path: str | None
    delay_s: float
    period_s: float
    timeout_s: float
    successes: int
    failures: int


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A Deployment with one container, whose `ports` are by name, or by number without one.

    Attributes:
        environment: (name, value or field of the pod, whether it is a field), in order.
        startup: Startup probe; the other probes start after it passes.
        pre_stop_s: Seconds from the decision to end a pod to SIGTERM.
        grace_s: Seconds from that decision to SIGKILL.
        mounts: Claim of each mounted path; None for an emptyDir.
    """

    name: str
    namespace: str
    labels: Mapping[str, str]
    replicas: int
    command: tuple[str, ...]
    environment: tuple[tuple[str, str, bool], ...]
    ports: Mapping[str, int]
    startup: Probe | None
    readiness: Probe | None
    liveness: Probe | None
    pre_stop_s: float
    grace_s: float
    mounts: Mapping[str, str | None]


@dataclass(frozen=True, kw_only=True)
class Service:
    """A Service; `ports` has the name or number of the container's port by the Service's own."""

    name: str
    selector: Mapping[str, str]
    ports: Mapping[int, str]

    def container_port(self, port: int, deployment: Deployment) -> int:
        """Returns the number of the container's port behind a port of this Service.

        Raises:
            ManifestError: the Deployment's container has no such port.
        """
        target = self.ports[port]
        number = deployment.ports.get(target, int(target) if target.isdigit() else 0)
        if number not in deployment.ports.values():
            raise ManifestError(
                f"Service/{self.name}: spec.ports: {port} goes to {target!r}, "
                f"which Deployment/{deployment.name} does not have"
            )
        return number


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """Deployments and Services of an overlay, in its order."""

    deployments: tuple[Deployment, ...]
    services: tuple[Service, ...]

    def pods_of(self, service: Service) -> list[Deployment]:
        """Returns the Deployments whose pods a Service selects."""
        selector = service.selector.items()
        return [each for each in self.deployments if selector <= each.labels.items()]

    def without(self, name: str) -> "Overlay":
        """Returns the overlay without the Deployment and the Service of a name."""
        return Overlay(
            deployments=tuple(each for each in self.deployments if each.name != name),
            services=tuple(each for each in self.services if each.name != name),
        )


def local_overlay() -> Overlay:
    """Returns the overlay k8s/overlays/local-cpu that was rendered into this package."""
    return read_overlay(json.loads(files(__package__).joinpath(OVERLAY).read_text()))


def read_overlay(manifests: Iterable[Manifest]) -> Overlay:
    """Reads rendered objects.

    Raises:
        ManifestError: a field is unknown, or objects do not fit each other.
    """
    deployments, services = [], []
    for manifest in manifests:
        check_fields(manifest)
        if manifest["kind"] == "Deployment":
            deployments.append(_deployment(manifest))
        elif manifest["kind"] == "Service":
            spec, ports = manifest["spec"], manifest["spec"]["ports"]
            targets = {each["port"]: str(each.get("targetPort", each["port"])) for each in ports}
            name = manifest["metadata"]["name"]
            services.append(Service(name=name, selector=spec["selector"], ports=targets))
    overlay = Overlay(deployments=tuple(deployments), services=tuple(services))
    for service in services:
        deployments = overlay.pods_of(service)
        if not deployments:
            raise ManifestError(
                f"Service/{service.name}: spec.selector: no Deployment's pods have "
                f"{dict(service.selector)}"
            )
        for deployment in deployments:
            for port in service.ports:
                service.container_port(port, deployment)
    return overlay


def _deployment(manifest: Manifest) -> Deployment:
    name, template = title(manifest), manifest["spec"]["template"]
    pod, where = template["spec"], "spec.template.spec"
    containers = pod["containers"]
    if len(containers) != 1:
        raise ManifestError(f"{name}: {where}.containers: expected one, got {len(containers)}")
    container, where = containers[0], f"{where}.containers[0]"
    if not container.get("command"):
        raise ManifestError(
            f"{name}: {where}.command: expected one: here no image says what to run"
        )
    ports: dict[str, int] = {}
    for index, each in enumerate(container.get("ports", ())):
        if (number := each["containerPort"]) in ports.values():
            raise ManifestError(f"{name}: {where}.ports[{index}]: {number} is there twice")
        ports[each.get("name", str(number))] = number
    lifecycle = container.get("lifecycle", {})
    return Deployment(
        name=manifest["metadata"]["name"],
        namespace=manifest["metadata"].get("namespace", "default"),
        labels=template["metadata"]["labels"],
        replicas=manifest["spec"].get("replicas", 1),
        command=(*container["command"], *container.get("args", ())),
        environment=tuple(_variable(each) for each in container.get("env", ())),
        ports=ports,
        **{
            kind: _probe(container.get(f"{kind}Probe"), ports, f"{name}: {where}.{kind}Probe")
            for kind in ("startup", "readiness", "liveness")
        },
        pre_stop_s=lifecycle.get("preStop", {}).get("sleep", {}).get("seconds", 0),
        grace_s=pod.get("terminationGracePeriodSeconds", 30),
        mounts=_mounts(pod, container, f"{name}: {where}.volumeMounts"),
    )


def _variable(variable: Mapping[str, Any]) -> tuple[str, str, bool]:
    if "valueFrom" in variable:
        return variable["name"], variable["valueFrom"]["fieldRef"]["fieldPath"], True
    return variable["name"], variable.get("value") or "", False


def _probe(probe: Mapping[str, Any] | None, ports: Mapping[str, int], where: str) -> Probe | None:
    if probe is None:
        return None
    by = next((each for each in ("grpc", "httpGet") if each in probe), None)
    if by is None:
        raise ManifestError(f"{where}: expected a probe by grpc or httpGet")
    port, numbers = probe[by]["port"], list(ports.values())
    if port not in numbers:
        raise ManifestError(f"{where}.{by}.port: {port} is none of the container's {numbers}")
    return Probe(
        port=port,
        service=probe[by].get("service", "") if by == "grpc" else None,
        path=probe[by].get("path", "/") if by == "httpGet" else None,
        delay_s=probe.get("initialDelaySeconds", 0),
        period_s=probe.get("periodSeconds", 10),
        timeout_s=probe.get("timeoutSeconds", 1),
        successes=probe.get("successThreshold", 1),
        failures=probe.get("failureThreshold", 3),
    )


def _mounts(
    pod: Mapping[str, Any], container: Mapping[str, Any], where: str
) -> dict[str, str | None]:
    claims = {
        each["name"]: each.get("persistentVolumeClaim", {}).get("claimName")
        for each in pod.get("volumes", ())
    }
    mounts = {}
    for index, mount in enumerate(container.get("volumeMounts", ())):
        if mount["name"] not in claims:
            raise ManifestError(f"{where}[{index}].name: no volume {mount['name']!r}")
        mounts[mount["mountPath"]] = claims[mount["name"]]
    return mounts
