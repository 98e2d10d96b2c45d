"""Health probe of a server, on a connection of its own as kubelet's probes."""

from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from muse_client import Tls
from muse_client.channels import blocking_channels


def serving(
    address: str, service: str = "", timeout_s: float = 1.0, tls: Tls | None = None
) -> bool:
    """Returns whether a server reports SERVING for a service, by default for all of it, in time.

    Raises:
        ValueError: a file of `tls` cannot be read or used.
    """
    with blocking_channels(address, tls).current() as channel:
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service=service)
            answer = stub.Check(request, timeout=timeout_s)
        except grpc.RpcError:
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING
