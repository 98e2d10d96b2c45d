"""Addresses of a Service's ready pods, read from its EndpointSlices.

Source: Kubernetes, "EndpointSlices": a Service has several slices, an endpoint may briefly be in
two of them, and an endpoint without a readiness condition counts as ready.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from muse_client.addresses import endpoint as host_and_port

SERVICE_LABEL = "kubernetes.io/service-name"
PORT_NAME = "grpc"
FAMILIES = ("IPv4", "IPv6")  # a pod with both is called at its IPv4 address

Slice = Mapping[str, Any]  # as JSON


def ready_addresses(slices: Iterable[Slice], port: int) -> list[str]:
    """Returns the sorted "host:port" of every pod that is ready and not terminating.

    `port` is that of pods in slices without a port named "grpc".
    """
    addresses: dict[tuple[str, str], tuple[int, str]] = {}
    for each in slices:
        if each.get("addressType") not in FAMILIES:
            continue
        family = FAMILIES.index(each["addressType"])
        number = next(
            (entry["port"] for entry in each.get("ports") or () if entry.get("name") == PORT_NAME),
            port,
        )
        for endpoint in each.get("endpoints") or ():
            if not endpoint.get("addresses") or not _callable(endpoint.get("conditions") or {}):
                continue
            host = endpoint["addresses"][0]  # further addresses are the same pod's
            address = host_and_port(host, number)
            target = endpoint.get("targetRef") or {}
            pod = (target.get("kind", ""), target.get("name", address))
            addresses[pod] = min(addresses.get(pod, (family, address)), (family, address))
    return sorted(address for _, address in addresses.values())


def _callable(conditions: Mapping[str, bool | None]) -> bool:
    return conditions.get("ready") is not False and not conditions.get("terminating")
