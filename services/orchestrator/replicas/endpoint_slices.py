"""Which pods of a Service may be called, read from its EndpointSlices.

Source: Kubernetes, "EndpointSlices": one Service has several slices, an endpoint may for a moment
be in two of them, and one that says nothing of its readiness counts as ready.
"""

from collections.abc import Iterable, Mapping
from typing import Any

SERVICE_LABEL = "kubernetes.io/service-name"
PORT_NAME = "grpc"
FAMILIES = ("IPv4", "IPv6")  # a pod that has both is called by the first

Slice = Mapping[str, Any]  # as JSON


def ready_addresses(slices: Iterable[Slice], port: int) -> list[str]:
    """Returns "host:port" of every pod that is ready and is not about to end, sorted.

    Args:
        slices: All of one Service.
        port: Of the pods, in slices that name none "grpc".
    """
    found: dict[tuple[str, str], tuple[int, str]] = {}
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
            host = endpoint["addresses"][0]  # the others, if any, are the same pod's
            address = f"[{host}]:{number}" if FAMILIES[family] == "IPv6" else f"{host}:{number}"
            target = endpoint.get("targetRef") or {}
            pod = (target.get("kind", ""), target.get("name", address))
            found[pod] = min(found.get(pod, (family, address)), (family, address))
    return sorted(address for _, address in found.values())


def _callable(conditions: Mapping[str, bool | None]) -> bool:
    return conditions.get("ready") is not False and not conditions.get("terminating")
