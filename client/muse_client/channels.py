"""The channel of a client, which is opened again when a file of its certificates changes."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

import grpc

from muse_client.addresses import RESOLVED, is_here
from muse_client.tls import Tls, TlsContent

AnyChannel = TypeVar("AnyChannel")
KEEPALIVE_TIME_MS, KEEPALIVE_TIMEOUT_MS = 30_000, 10_000
MAX_RECONNECT_MS = (
    2_000  # between two attempts to connect; gRPC's two minutes outlast most restarts
)
ROUND_ROBIN = ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}')
_MAX_ANSWER_BYTES = 64 * 2**20


def channel_options(address: str, tls: Tls | None = None) -> list[tuple[str, int | str]]:
    """Returns the options of a channel: message limits, keepalive, no HTTP proxy to this machine.

    Calls of an address `dns:///...` take turns between all addresses of its name.

    Pings keep load balancers and NAT from forgetting a connection that is silent, and show one that
    is lost. The servers permit pings of this interval; others refuse them within five minutes.
    """
    options: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),  # a minute by default
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),  # no limit
        ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_MS),
    ]
    if address.startswith(RESOLVED):
        options.append(ROUND_ROBIN)
    if tls is not None and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return [*options, ("grpc.enable_http_proxy", 0)] if is_here(address) else options


class Channels(Generic[AnyChannel]):
    """The channel of a client, and those that it had before; threads may share one.

    gRPC gives a channel its certificates once. So a channel is opened again for the first call
    after a file has changed; calls in progress keep theirs.

    Attributes:
        opened: Every channel, the current one last, for the client to close.
    """

    def __init__(
        self,
        address: str,
        tls: Tls | None,
        *,
        plain: Callable[..., AnyChannel],
        secure: Callable[..., AnyChannel],
    ) -> None:
        """Opens a channel, by one of two functions of gRPC.

        Raises:
            ValueError: a file of `tls` cannot be read or used.
        """
        self._address, self._tls, self._secure = address, tls, secure
        self._options: Any = channel_options(address, tls)
        self._lock = threading.Lock()
        self._content: TlsContent | None = None
        self.opened = [plain(address, options=self._options)] if tls is None else []
        if tls is not None:
            self._follow_files(tls)

    def current(self) -> AnyChannel:
        """Returns the channel for a call.

        A changed file that cannot be used, such as a half-written one, changes nothing.
        """
        if self._tls is not None:
            with self._lock, suppress(ValueError):
                self._follow_files(self._tls)
        return self.opened[-1]

    def _follow_files(self, tls: Tls) -> None:
        content = tls.content()
        if content != self._content:
            tls.check()
            channel = self._secure(self._address, content.credentials(), options=self._options)
            self._content = content
            self.opened.append(channel)


def blocking_channels(address: str, tls: Tls | None) -> Channels[grpc.Channel]:
    """Opens the channel of a blocking client; errors as of `Channels`."""
    return Channels(address, tls, plain=grpc.insecure_channel, secure=grpc.secure_channel)


def asynchronous_channels(address: str, tls: Tls | None) -> Channels[grpc.aio.Channel]:
    """Opens the channel of an asynchronous client; errors as of `Channels`."""
    return Channels(address, tls, plain=grpc.aio.insecure_channel, secure=grpc.aio.secure_channel)
