"""Addresses of pods on this machine: separate loopback addresses where there are several."""

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Self

PREFIX = "127.0.9."
ONLY = "127.0.0.1"


@dataclass(frozen=True)
class PodAddress:
    """Address of a pod.

    Attributes:
        host: Loopback address.
        ports: Ports on this machine, by port of the container.
    """

    host: str
    ports: MappingProxyType[int, int]

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


class Network:
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
        self._several = several_addresses() if several is None else several
        self._leases: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for lease in self._leases:
            lease.close()

    def allocate(self, ports: Sequence[int]) -> PodAddress:
        """Allocates an address on which these ports are free.

        Raises:
            OSError: there is no such address.
        """
        if not self._several:
            found = {port: self._leased_port() for port in ports}
            return PodAddress(ONLY, MappingProxyType(found))
        for last in range(1, 255):
            host = f"{PREFIX}{last}"
            if self._leased(host, ports):
                return PodAddress(host, MappingProxyType({port: port for port in ports}))
        raise OSError(
            f"no address of {PREFIX}0/24 has the ports {list(ports)} free: what listens there on "
            "every address?"
        )

    def _leased(self, host: str, ports: Sequence[int]) -> bool:
        leases: list[socket.socket] = []
        for port in ports:
            lease = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            leases.append(lease)
            try:
                lease.bind((host, port))
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((host, port))
            except OSError as error:
                for each in leases:
                    each.close()
                if error.errno != errno.EADDRINUSE:
                    raise
                return False
        self._leases += leases
        return True

    def _leased_port(self) -> int:
        while True:
            with socket.socket() as probe:
                probe.bind((ONLY, 0))
                port = int(probe.getsockname()[1])
                lease = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                try:
                    lease.bind((ONLY, port))
                except OSError:
                    lease.close()
                else:
                    self._leases.append(lease)
                    return port
