"""Ports of this machine for a stack: the orchestrator's, those of the stages, the gateway's."""

import socket

GATEWAY_OFFSET = 5  # from the orchestrator's port, after the four stages'
SERVICES = GATEWAY_OFFSET + 1


def free_base_port() -> int:
    """A port whose next five are free as well; below those that outgoing connections are given."""
    return next(
        first
        for first in range(22050, 32000, SERVICES)
        if not any(listening(("127.0.0.1", port)) for port in range(first, first + SERVICES))
    )


def http_of(base_port: int) -> str:
    """Returns where the gateway answers."""
    return f"http://127.0.0.1:{base_port + GATEWAY_OFFSET}"


def listening(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0
