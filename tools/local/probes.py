"""Asking a server for its health, as kubelet does: on a connection of its own."""

from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def serving(address: str, service: str = "", timeout_s: float = 1.0) -> bool:
    """Returns whether a server says SERVING.

    Args:
        address: "host:port".
        service: Name to ask for; by default the whole server.
        timeout_s: No answer after it is one too.
    """
    with grpc.insecure_channel(address) as channel:
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            asked = health_pb2.HealthCheckRequest(service=service)
            answer = stub.Check(asked, timeout=timeout_s)
        except grpc.RpcError:
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING
