"""Addresses of a stage's replicas, parsed from a setting."""

from dataclasses import dataclass
from pathlib import Path

from muse_client.addresses import RESOLVED, Address, parse_address

OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class ServiceName:
    """A Kubernetes Service and the port of its pods.

    Attributes:
        namespace: Namespace of the Service; "" for the namespace of this pod.
        name: Name of the Service.
        port: Port of its pods, unless they name a port "grpc".
    """

    namespace: str
    name: str
    port: int

    @property
    def host(self) -> str:
        """Its DNS name, which the certificates of its pods have."""
        return f"{self.name}.{self.namespace}" if self.namespace else self.name


def names_several(address: str) -> bool:
    """Returns whether gRPC resolves an address to several servers."""
    return address.startswith(RESOLVED)


def addresses_of(setting: str, stage: str) -> list[str]:
    """Returns the addresses in a setting, such as "host:port,dns:///name:port", in one spelling.

    Raises:
        ValueError: an address has no host or port, or is repeated.
    """
    addresses = [_parsed(address.strip(), stage).target for address in setting.split(",")]
    for address in addresses:
        if addresses.count(address) > 1:
            raise ValueError(f"{stage}: expected every address once, got {address!r} twice")
    return addresses


def service_of(setting: str, stage: str) -> ServiceName:
    """Returns the Service that an address names: "dns:///base:50053", or "base.muse:50053".

    Raises:
        ValueError: the setting is not a single name and port.
    """
    if "," in setting:
        raise ValueError(
            f"{stage}: expected one NAME:PORT with --discovery kubernetes, got {setting!r}"
        )
    address = _parsed(setting, stage)
    labels = address.host.split(".")
    if labels[0].isdigit() or ":" in address.host:
        raise ValueError(
            f"{stage}: expected the name of a Service with --discovery kubernetes, got {setting!r}"
        )
    return ServiceName(labels[1] if len(labels) > 1 else "", labels[0], address.port)


def _parsed(address: str, stage: str) -> Address:
    try:
        return parse_address(address)
    except ValueError as error:
        raise ValueError(f"{stage}: {error}; separate several by commas") from None
