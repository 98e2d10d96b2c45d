"""gRPC channels, and options of channels and servers: message limits, keepalive and proxies."""

from typing import Any

import grpc
from muse_client.addresses import is_here

from services.runtime.server.certificates import Certificates, channel_credentials
from services.runtime.server.settings import ServerSettings

# A machine that fails does not close its connections: a ping without an answer shows the failure.
KEEPALIVE_TIME_MS, KEEPALIVE_TIMEOUT_MS = 10_000, 5_000
MIN_PING_INTERVAL_MS = KEEPALIVE_TIME_MS // 2  # gRPC refuses pings within 5 min by default

HANDSHAKE_TIMEOUT_MS = 10_000  # two minutes by default, for a connection that says nothing


def channel_options(max_message_mib: int = 32) -> list[tuple[str, int]]:
    """Returns the options of a channel or server: message limits, and no shared ports."""
    limit = max_message_mib * 1024 * 1024
    return [
        ("grpc.max_receive_message_length", limit),
        ("grpc.max_send_message_length", limit),
        ("grpc.so_reuseport", 0),
    ]


def open_channel(
    address: str, certificates: Certificates | None, **arguments: Any
) -> grpc.aio.Channel:
    """Opens a channel with TLS, or in plain text without certificates.

    `arguments` are those of `grpc.aio.insecure_channel`.
    """
    if certificates is None:
        return grpc.aio.insecure_channel(address, **arguments)
    return grpc.aio.secure_channel(address, channel_credentials(certificates), **arguments)


def server_name_options(name: str) -> list[tuple[str, str]]:
    """Returns the options by which a server's certificate must have a name, not its address."""
    return [("grpc.ssl_target_name_override", name)] if name else []


def proxy_options(address: str) -> list[tuple[str, int]]:
    """Returns the options that keep HTTP proxies of the environment out of this machine's calls.

    A proxy that `http_proxy` names is elsewhere, and cannot reach a loopback address of this one.
    """
    return [("grpc.enable_http_proxy", 0)] if is_here(address) else []


def keepalive_options() -> list[tuple[str, int]]:
    """Returns the options with which a channel or server detects that its peer is gone."""
    return [
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),  # a minute by default
        ("grpc.http2.max_pings_without_data", 0),  # no limit: a decode may send nothing for long
        # Also without calls: load balancers and NAT forget connections that are silent. A server
        # takes pings from a client that has no calls; it refuses them by default.
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def server_options(max_message_mib: int = 32) -> list[tuple[str, int]]:
    """Returns the options of a server: `channel_options`, and keepalive in both directions."""
    return [
        *channel_options(max_message_mib),
        *keepalive_options(),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
    ]


def limit_options(settings: ServerSettings) -> list[tuple[str, int]]:
    """Returns the options that bound the connections of a server, and the metadata of a call."""
    metadata_bytes = settings.max_metadata_kib * 1024
    return [
        # Two limits between which gRPC refuses some calls at random: made one.
        ("grpc.max_metadata_size", metadata_bytes),
        ("grpc.absolute_max_metadata_size", metadata_bytes),
        ("grpc.max_concurrent_streams", settings.max_streams),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_connection_idle_ms", round(settings.max_connection_idle_s * 1000)),
        ("grpc.max_connection_age_ms", round(settings.max_connection_age_s * 1000)),
        ("grpc.max_connection_age_grace_ms", round(settings.connection_grace_s * 1000)),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
    ]
