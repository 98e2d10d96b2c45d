"""Translation of the overlay's pods to processes: commands, variables and addresses."""

import os
import re
import site
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from muse_client import Tls
from muse_client.addresses import RESOLVED

from services.mesh import parse_mesh
from services.orchestrator.replicas.addresses import names_several
from services.runtime.checkpoints.precision import Precision, Weights
from services.stages import DECODING, NO_STAGE
from tools.local.fields import ManifestError
from tools.local.folders import Folders
from tools.local.manifest import Deployment, Overlay
from tools.local.network import Network, PodAddress

EVERY_ADDRESS = ("0.0.0.0", "::", "[::]")
CALLERS_OWN = ("JAX_", "OTEL_")  # variables of the caller that override the manifest's
# Variables for the caller's own calls of other servers.
CALLS = ("MUSE_TLS_", "MUSE_STAGE_TLS_", "MUSE_ORCHESTRATOR_TLS_")
MAX_REPLICAS = 64

Flags = Mapping[str, Sequence[str]]
"""Additional flags by name of the Deployment."""


@dataclass(frozen=True, kw_only=True)
class LocalPod:
    """A pod, such as "base-0", as a process of this machine; its probes use `tls`, if any."""

    name: str
    deployment: Deployment
    address: PodAddress
    command: tuple[str, ...]
    environment: Mapping[str, str]
    tls: Tls | None = None


def stage_flags(
    *,
    mesh: str | None = None,
    weights: Weights | None = None,
    precision: Precision | None = None,
    rows: int | None = None,
) -> Flags:
    """Returns additional flags of the stages' Deployments.

    Args:
        mesh: Mesh of base and of superres, such as "model=4"; None keeps the default.
        weights: Storage of the matrices of text encoder, base and superres; None keeps the default.
        precision: Of the factors of every stage's products; None keeps the default.
        rows: Decodes that one call of base's or superres's network computes; None keeps the
            default.

    Raises:
        ValueError: the mesh is malformed.
    """
    if mesh is not None:
        parse_mesh(mesh)
    stored = [] if weights is None else [f"--weights={weights}"]
    cut = [] if mesh is None else [f"--mesh={mesh}"]
    rounded = [] if precision is None else [f"--precision={precision}"]
    flags: dict[str, list[str]] = {"text-encoder": [*stored, *rounded], "tokenizer": rounded}
    joint = [] if rows is None else [f"--rows={rows}"]
    flags |= {name: [*stored, *cut, *rounded, *joint] for name in DECODING}
    return {name: each for name, each in flags.items() if each}


def parse_replicas(words: Sequence[str]) -> dict[str, int]:
    """Parses numbers of pods, such as "base=3".

    Raises:
        ValueError: a word is malformed.
    """
    numbers = {}
    for word in words:
        name, _, number = word.partition("=")
        if not name or not number.isdecimal() or not 1 <= int(number) <= MAX_REPLICAS:
            raise ValueError(
                f"replicas: expected NAME=N, such as base=3, with N of 1 to {MAX_REPLICAS}, "
                f"got {word!r}"
            )
        numbers[name.replace("_", "-")] = int(number)
    return numbers


def scaled(overlay: Overlay, replicas: Mapping[str, int]) -> Overlay:
    """Returns an overlay with changed numbers of pods.

    Raises:
        ValueError: the overlay has no such Deployment.
    """
    deployments = {each.name: each for each in overlay.deployments}
    for name, number in replicas.items():
        if name not in deployments:
            raise ValueError(f"replicas: expected one of {list(deployments)}, got {name!r}")
        deployments[name] = replace(deployments[name], replicas=number)
    return replace(overlay, deployments=tuple(deployments.values()))


def without_superres(overlay: Overlay) -> Overlay:
    """Returns an overlay without the superres, whose orchestrator calls none."""

    def changed(deployment: Deployment) -> Deployment:
        environment = tuple(
            (name, NO_STAGE if name == "MUSE_SUPERRES" else value, is_field)
            for name, value, is_field in deployment.environment
        )
        return replace(deployment, environment=environment)

    fewer = overlay.without("superres")
    return replace(fewer, deployments=tuple(changed(each) for each in fewer.deployments))


def place_pods(
    overlay: Overlay, network: Network, folders: Folders, flags: Flags | None = None
) -> list[LocalPod]:
    """Translates every pod of an overlay.

    Raises:
        ManifestError: a value cannot be translated.
        OSError: there is no free address for a pod.
    """
    addresses = {
        each.name: [network.allocate(tuple(each.ports.values())) for _ in range(each.replicas)]
        for each in overlay.deployments
    }
    return [
        _Translation(overlay, each, addresses, folders, index).pod((flags or {}).get(each.name, ()))
        for each in overlay.deployments
        for index in range(each.replicas)
    ]


class _Translation:
    """Translation of one pod's manifest."""

    def __init__(
        self,
        overlay: Overlay,
        deployment: Deployment,
        addresses: Mapping[str, Sequence[PodAddress]],
        folders: Folders,
        index: int,
    ) -> None:
        self._overlay, self._deployment, self._addresses = overlay, deployment, addresses
        self._name = f"{deployment.name}-{index}"
        self._address = addresses[deployment.name][index]
        self._mounts, claims = {}, folders.claims
        self._compiled = claims["compiled"]
        for path, claim in deployment.mounts.items():
            if claim is not None and claim not in claims:
                raise ManifestError(
                    f"Deployment/{deployment.name}: claim {claim!r} is none of {sorted(claims)}, "
                    "which have folders here"
                )
            own = folders.own / self._name / path.strip("/").replace("/", "-")
            self._mounts[path] = own if claim is None else claims[claim]

    def pod(self, flags: Sequence[str]) -> LocalPod:
        """Returns the translated pod, and creates its folders."""
        for path, claim in self._deployment.mounts.items():
            if claim is None:
                self._mounts[path].mkdir(parents=True)
        variables: dict[str, str] = {}
        for name, value, is_field in self._deployment.environment:
            if is_field:
                variables[name] = self._field(name, value)
                continue
            value = self._translated(value, variables, name)
            if name.endswith("_PORT") and value.isdigit():
                value = str(self._address.ports.get(int(value), value))
            variables[name] = value
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(CALLS)},
            "PYTHONUSERBASE": site.getuserbase(),  # otherwise another HOME would move it
            "MUSE_COMPILATION_CACHE": str(self._compiled),
            **({"TMPDIR": str(self._mounts["/tmp"])} if "/tmp" in self._mounts else {}),
            **variables,
            **{name: value for name, value in os.environ.items() if name.startswith(CALLERS_OWN)},
        }
        words = [self._translated(each, variables, "command") for each in self._deployment.command]
        if words[0] == "python":
            words[0] = sys.executable
        return LocalPod(
            name=self._name,
            deployment=self._deployment,
            address=self._address,
            command=(*words, *flags),
            environment=environment,
        )

    def _field(self, variable: str, path: str) -> str:
        fields = {
            "metadata.name": self._name,
            "metadata.namespace": self._deployment.namespace,
            "spec.nodeName": "localhost",
            "status.podIP": self._address.host,
        }
        if path not in fields:
            raise self._error(variable, f"the field {path!r} is none of {sorted(fields)}")
        return fields[path]

    def _translated(self, value: str, variables: Mapping[str, str], where: str) -> str:
        """Returns a value with variables, addresses, Services and mounted folders replaced."""
        value = re.sub(r"\$\((\w+)\)", lambda found: variables.get(found[1], found[0]), value)
        before, equals, value = value.rpartition("=") if value.startswith("-") else ("", "", value)
        if value in EVERY_ADDRESS:
            value = self._address.host
        for path, folder in sorted(self._mounts.items(), reverse=True):  # the innermost first
            if value == path or value.startswith(f"{path}/"):
                value = f"{folder}{value[len(path) :]}"
                break
        return before + equals + self._resolved(value, where)

    def _resolved(self, value: str, where: str) -> str:
        """Returns the addresses of the pods if a value names their Service, or else the value."""
        host, _, port = value.removeprefix(RESOLVED).rpartition(":")
        name, *domain = host.split(".")
        services = {each.name: each for each in self._overlay.services}
        ours = domain[:1] in ([], [self._deployment.namespace])
        if not port.isdigit() or name not in services or not ours:
            if names_several(value):
                raise self._error(where, f"no Service {host!r} for {value!r}")
            return value
        service = services[name]
        if int(port) not in service.ports:
            raise self._error(where, f"{value!r}: its Service has {sorted(service.ports)}")
        return ",".join(
            address.endpoint(service.container_port(int(port), deployment))
            for deployment in self._overlay.pods_of(service)
            for address in self._addresses[deployment.name]
        )

    def _error(self, where: str, what: str) -> ManifestError:
        return ManifestError(f"Deployment/{self._deployment.name}: {where}: {what}")
