"""TLS of a client: its authorities and certificate, and why a handshake failed."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path

import grpc


@dataclass(frozen=True)
class TlsContent:
    """Content of the files of `Tls`, in PEM; None for a file that is not given."""

    ca: bytes | None
    cert: bytes | None
    key: bytes | None = field(repr=False)

    def credentials(self) -> grpc.ChannelCredentials:
        """Returns the credentials of a channel."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.cert)


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Calls over TLS. The files are in PEM, and are read again when they change.

    Attributes:
        ca: File of the authorities that may sign the server's certificate; by default the public
            ones that gRPC comes with.
        cert: File of the client's own certificate, for servers that need one.
        key: File of its private key, without a password.
        server_name: Name that the server's certificate must have; by default the host of its
            address.
    """

    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            given, missing = ("key", "cert") if self.cert is None else ("cert", "key")
            raise ValueError(f"tls {missing}: expected a file beside that of the {given}, got none")

    def content(self) -> TlsContent:
        """Reads the files.

        Raises:
            ValueError: one cannot be read; the message names it.
        """
        return TlsContent(
            ca=_read("ca", self.ca), cert=_read("cert", self.cert), key=_read("key", self.key)
        )

    def check(self) -> None:
        """Checks what is in the files.

        Raises:
            ValueError: one cannot be used; the message names it, and repeats nothing of it.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca is not None:
            try:
                context.load_verify_locations(self.ca)
            except OSError:  # of ssl, or the file has just gone
                raise ValueError(
                    f"tls ca: expected certificates in PEM, got {self.ca}, which holds none"
                ) from None
        if self.cert is not None:
            try:
                context.load_cert_chain(self.cert, self.key, password="")
            except (OSError, ValueError):  # its text may be of the key
                raise ValueError(
                    "tls cert, key: expected a certificate and its key in PEM without a password, "
                    f"got {self.cert} and {self.key}, which are none, or not of each other"
                ) from None


def _read(name: str, file: str | Path | None) -> bytes | None:
    try:
        return None if file is None else Path(file).read_bytes()
    except OSError as error:
        raise ValueError(
            f"tls {name}: expected a file in PEM, got {file}, which cannot be read: "
            f"{error.strerror}"
        ) from error


# What gRPC says of a failed handshake, and what it means.
_SERVERS_FAULTS = {
    "certificate has expired": "its certificate has expired",
    "certificate is not yet valid": "its certificate is not valid yet",
    "Hostname Verification Check failed": "its certificate is of another host",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not signed by an authority that is trusted",
    "WRONG_VERSION_NUMBER": "it speaks plain text, and this client TLS",
}
_CONNECTING = "failed to connect to all addresses"
_CLOSED = "Socket closed"  # all that gRPC says of a handshake that the server ends


def handshake_problem(details: str, tls: Tls | None) -> str | None:
    """Returns why a TLS handshake failed; None if gRPC's details are of something else.

    Args:
        details: Details of the call's status.
        tls: TLS of the client; None if it speaks plain text.
    """
    if not details.startswith(_CONNECTING):
        return None
    for text, meaning in _SERVERS_FAULTS.items():
        if text in details:
            return meaning
    if _CLOSED not in details:
        return None
    if tls is None:
        return "it closed the connection, as one does that speaks TLS; this client does not"
    if tls.cert is None:
        return (
            "it closed the connection, as one does that needs a certificate; this client has none"
        )
    return (
        f"it closed the connection, as one does that refuses a certificate: that of {tls.cert} may "
        "have expired, be not valid yet, or be signed by another authority"
    )
