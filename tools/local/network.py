"""Where pods are on this machine: on loopback addresses of their own, if it has several."""

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Self

PREFIX = "127.0.9."
ONLY = "127.0.0.1"


@dataclass(frozen=True)
class Place:
    """Where a pod is.

    Attributes:
        host: Its address.
        ports: On this machine, by the port that its container was to have.
    """

    host: str
    ports: MappingProxyType[int, int]

    def address(self, port: int) -> str:
        """Returns "host:port" of a container's port."""
        return f"{self.host}:{self.ports[port]}"


def several_addresses() -> bool:
    """Returns whether any loopback address may be listened on: on Linux, not on macOS."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((f"{PREFIX}1", 0))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            return False
    return True


class Network:
    """Hands out places, and keeps them from other runners of this machine until it is closed.

    With several addresses a pod gets the first 127.0.9.N that has all of its ports free, and its
    ports are the container's. With one, every port is a free one of 127.0.0.1. A place is held by
    UDP sockets on the same ports, which nothing else of ours uses: the kernel releases them however
    this process ends.
    """

    def __init__(self, *, several: bool | None = None) -> None:
        """Has no places yet.

        Args:
            several: Whether to use several addresses; by default, whether there are.
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

    def place(self, ports: Sequence[int]) -> Place:
        """Returns a place with these ports that is nobody's.

        Raises:
            OSError: there is none.
        """
        if not self._several:
            found = {port: self._leased_port() for port in ports}
            return Place(ONLY, MappingProxyType(found))
        for last in range(1, 255):
            host = f"{PREFIX}{last}"
            if self._leased(host, ports):
                return Place(host, MappingProxyType({port: port for port in ports}))
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
                if self._leased_beside(port):
                    return port

    def _leased_beside(self, port: int) -> bool:
        lease = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            lease.bind((ONLY, port))
        except OSError:
            lease.close()
            return False
        self._leases.append(lease)
        return True
