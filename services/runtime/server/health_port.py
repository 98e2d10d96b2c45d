"""A port for health checks in plain text, where a server itself speaks TLS.

The probes of Kubernetes speak gRPC without TLS.
"""

from dataclasses import replace

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from services.runtime.server.listener import Listener
from services.runtime.server.settings import ServerSettings


def health_listener(
    states: health.aio.HealthServicer, settings: ServerSettings, port: int
) -> Listener:
    """Returns the listener of a port where health alone is answered."""

    def add_health(server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(states, server)

    plain = replace(
        settings,
        port=port,
        health_port=None,
        tls_cert=None,
        tls_key=None,
        tls_ca=None,
        tls_clients=(),
        insecure=True,
    )
    return Listener(add_health, plain)
