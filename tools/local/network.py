"""Addresses of pods on this machine: separate loopback addresses where there are several."""

import errno
import itertools
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

PREFIX = "127.0.9."
ONLY = "127.0.0.1"


@dataclass(frozen=True)
class PodAddress:
    """Address of a pod; `ports` are those of this machine, by port of the container."""

    host: str
    ports: Mapping[int, int]

    def endpoint(self, port: int) -> str:
        """Returns "host:port" of a container's port."""
        return f"{self.host}:{self.ports[port]}"


def several_addresses() -> bool:
    """Returns whether servers can listen on any loopback address: on Linux, not on macOS."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((f"{PREFIX}1", 0))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            return False
    return True


class Network(ExitStack):
    """Allocates addresses for pods, and reserves them from other runners until it is closed.

    With several loopback addresses a pod gets the first 127.0.9.N on which all of its container's
    ports are free. With one address, each port is a free port of 127.0.0.1. UDP sockets on the same
    ports reserve an address; the kernel releases them however this process ends.
    """

    def __init__(self, *, several: bool | None = None) -> None:
        """Starts without reserved addresses.

        Args:
            several: Whether to use several loopback addresses; found out by default.
        """
        super().__init__()
        self._several = several_addresses() if several is None else several

    def allocate(self, ports: Sequence[int]) -> PodAddress:
        """Allocates an address on which these ports are free.

        Raises:
            OSError: there is no such address.
        """
        hosts: Iterable[str] = itertools.repeat(ONLY)
        if self._several:
            hosts = (f"{PREFIX}{last}" for last in range(1, 255))
        for host in hosts:
            with ExitStack() as leases:
                try:
                    found = {
                        port: _lease(leases, host, port if self._several else 0) for port in ports
                    }
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:
                        raise
                    continue
                self.enter_context(leases.pop_all())
                return PodAddress(host, found)
        raise OSError(
            f"no address of {PREFIX}0/24 has the ports {list(ports)} free: what listens there on "
            "every address?"
        )


def _lease(leases: ExitStack, host: str, port: int) -> int:
    """Reserves a port, or any free one for 0; raises OSError if it is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        port = int(probe.getsockname()[1])
        lease = leases.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        lease.bind((host, port))
    return port
