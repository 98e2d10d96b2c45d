"""Ports of this machine for a stack: the orchestrator's, those of the stages, the gateway's."""

import os
import socket

GATEWAY_OFFSET = 5  # from the orchestrator's port, after the four stages'
SERVICES = GATEWAY_OFFSET + 1
# Below the ports that outgoing connections are given. Each worker of pytest-xdist has a range of
# its own: two that look at the same time find the same ports free.
FIRST_PORT, PORTS_OF_WORKER = 22050, 600


def free_base_port() -> int:
    """A port whose next five are free as well."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    begin = FIRST_PORT + worker * PORTS_OF_WORKER
    return next(
        first
        for first in range(begin, begin + PORTS_OF_WORKER, SERVICES)
        if not any(listening(("127.0.0.1", port)) for port in range(first, first + SERVICES))
    )


def http_of(base_port: int) -> str:
    """Returns where the gateway answers."""
    return f"http://127.0.0.1:{base_port + GATEWAY_OFFSET}"


def listening(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0
