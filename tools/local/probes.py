"""Health probes of a server, each on a connection of its own as kubelet's probes."""

import ssl
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from muse_client import Tls
from muse_client.channels import blocking_channels

from tools.local.manifest import Probe


def passes(probe: Probe, address: str, tls: Tls | None = None) -> bool:
    """Returns whether a probe of a server's address, by gRPC or HTTP, passes in time.

    Raises:
        ValueError: a file of `tls` cannot be read or used.
    """
    if probe.path is not None:
        return _gets(address, probe.path, probe.timeout_s, tls)
    return serving(address, probe.service or "", probe.timeout_s, tls)


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


def _gets(address: str, path: str, timeout_s: float, tls: Tls | None) -> bool:
    """Returns whether a server answers a path with a status of success or redirection."""
    if tls is None:
        connection = HTTPConnection(address, timeout=timeout_s)
    else:
        tls.check()
        context = ssl.create_default_context(cafile=tls.ca)
        connection = HTTPSConnection(address, timeout=timeout_s, context=context)
    try:
        connection.request("GET", path)
        return HTTPStatus.OK <= connection.getresponse().status < HTTPStatus.BAD_REQUEST
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
