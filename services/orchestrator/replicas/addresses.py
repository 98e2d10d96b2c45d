"""Where the replicas of a stage are, as a setting says it."""

from dataclasses import dataclass
from pathlib import Path

RESOLVED = "dns:///"
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class ServiceName:
    """A Service of Kubernetes and the port of its pods.

    Attributes:
        namespace: Where it is; "" for that of this pod.
        name: Its name.
        port: Of its pods, if they do not name one "grpc".
    """

    namespace: str
    name: str
    port: int


def names_several(address: str) -> bool:
    """Returns whether an address is a name that stands for several servers."""
    return address.startswith(RESOLVED)


def addresses_of(setting: str, stage: str) -> list[str]:
    """Returns the addresses of a stage's replicas.

    Args:
        setting: One or several, separated by commas: "host:port" or "dns:///name:port".
        stage: Its name, for the error.

    Raises:
        ValueError: one has no host or port, or is there twice.
    """
    addresses = [address.strip() for address in setting.split(",")]
    for address in addresses:
        _host_and_port(address, stage)
        if addresses.count(address) > 1:
            raise ValueError(f"{stage}: expected every address once, got {address!r} twice")
    return addresses


def service_of(setting: str, stage: str) -> ServiceName:
    """Returns the Service that an address names: "dns:///base:50053", or "base.muse:50053".

    Raises:
        ValueError: it is no single name and port.
    """
    if "," in setting:
        raise ValueError(
            f"{stage}: expected one NAME:PORT with --discovery kubernetes, got {setting!r}"
        )
    host, port = _host_and_port(setting, stage)
    labels = host.split(".")
    if labels[0].isdigit() or ":" in host:
        raise ValueError(
            f"{stage}: expected the name of a Service with --discovery kubernetes, got {setting!r}"
        )
    return ServiceName(labels[1] if len(labels) > 1 else "", labels[0], port)


def _host_and_port(address: str, stage: str) -> tuple[str, int]:
    host, _, port = address.removeprefix(RESOLVED).rpartition(":")
    if not host or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError(
            f"{stage}: expected HOST:PORT or dns:///NAME:PORT, or several separated by commas, "
            f"got {address!r}"
        )
    return host, int(port)
