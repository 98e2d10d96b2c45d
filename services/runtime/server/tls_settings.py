"""Checks of settings for TLS: none is given without those that it needs."""

from collections.abc import Sequence
from pathlib import Path


def check_key_pair(setting: str, cert: Path | None, key: Path | None) -> None:
    """Checks that certificate and key are given together.

    Args:
        setting: Start of the settings' names: "tls" of "tls_cert".
        cert: File of the certificate.
        key: File of its private key.

    Raises:
        ValueError: one of them is missing.
    """
    for given, missing, value in (("cert", "key", key), ("key", "cert", cert)):
        if value is None and (cert, key) != (None, None):
            raise ValueError(
                f"{setting}_{missing}: expected a file beside {setting}_{given}, got none"
            )


def check_clients(clients: Sequence[str], cert: Path | None, ca: Path | None) -> None:
    """Checks what a server requires of its clients.

    Args:
        clients: Names of the clients that it accepts.
        cert: File of the server's own certificate.
        ca: File of the authorities of its clients.

    Raises:
        ValueError: a setting is missing, or a name would accept no client, or several.
    """
    if ca is not None and cert is None:
        raise ValueError("tls_cert: expected the server's certificate beside tls_ca, got none")
    if clients and ca is None:
        raise ValueError(
            "tls_ca: expected the authorities of the clients that tls_clients names, got none"
        )
    for name in clients:
        if not name or "*" in name or any(letter.isspace() for letter in name):
            raise ValueError(
                "tls_clients: expected SPIFFE URIs or DNS names without wildcards, such as "
                f"spiffe://cluster.local/ns/muse/sa/orchestrator, got {name!r}"
            )
