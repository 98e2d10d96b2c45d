"""The channel of a client, which is opened again when a file of its certificates changes."""

import threading
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Generic, TypeVar

import grpc

from muse_client.tls import Tls, TlsContent

AnyChannel = TypeVar("AnyChannel")
_MAX_MESSAGE_BYTES = 64 * 2**20


def channel_options(address: str, tls: Tls | None = None) -> list[tuple[str, int | str]]:
    """Returns the options of a channel: message limits, and no HTTP proxy to this machine."""
    options: list[tuple[str, int | str]] = [("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES)]
    if tls is not None and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    host = address.removeprefix("dns:///").rpartition(":")[0].strip("[]")
    try:
        local = ip_address(host).is_loopback
    except ValueError:  # a name
        local = host == "localhost"
    return [*options, ("grpc.enable_http_proxy", 0)] if local else options


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
