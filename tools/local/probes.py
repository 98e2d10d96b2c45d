"""Health probe of a server, on a connection of its own as kubelet's probes."""

from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime.server.channels import proxy_options


def serving(address: str, service: str = "", timeout_s: float = 1.0) -> bool:
    """Returns whether a server reports SERVING for a service, by default for all of it, in time."""
    with grpc.insecure_channel(address, options=proxy_options(address)) as channel:
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service=service)
            answer = stub.Check(request, timeout=timeout_s)
        except grpc.RpcError:
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING
