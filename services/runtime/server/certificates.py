"""Certificates of a server or a client: PEM files, read again when they change."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """Content of the files, in PEM.

    Attributes:
        cert: Certificate, followed by those of intermediate authorities; None for none.
        key: Private key of the certificate.
        ca: Certificates of the authorities that may sign the peer's; None for none.
    """

    cert: bytes | None
    key: bytes | None = field(repr=False)
    ca: bytes | None


@dataclass(frozen=True, kw_only=True)
class CertificateFiles:
    """Files of certificates.

    Attributes:
        setting: Start of the settings' names, for messages: "tls" of "tls_cert".
        cert: File of the certificate; None for none.
        key: File of its private key.
        ca: File of the peer's authorities; None for none.
    """

    setting: str
    cert: Path | None
    key: Path | None
    ca: Path | None

    def content(self) -> Certificates:
        """Reads the files.

        Raises:
            ValueError: one cannot be read.
        """
        return Certificates(
            cert=self._content("cert", self.cert),
            key=self._content("key", self.key),
            ca=self._content("ca", self.ca),
        )

    def _content(self, name: str, file: Path | None) -> bytes | None:
        try:
            return None if file is None else file.read_bytes()
        except OSError as error:
            raise ValueError(
                f"{self.setting}_{name}: expected a file in PEM, got {file}, which cannot be read: "
                f"{error.strerror}"
            ) from error

    def check(self, content: Certificates) -> None:
        """Checks that a server or client can use the content of the files.

        Raises:
            ValueError: the message names the file, and repeats nothing of it.
        """
        if content.cert is not None and content.key is not None:
            chain = _certificates(f"{self.setting}_cert", self.cert, content.cert)
            if self._private_key(content.key).public_key() != chain[0].public_key():
                raise ValueError(
                    f"{self.setting}_key: expected the key of the certificate {self.cert}, got "
                    f"{self.key}, which is that of another one"
                )
            _check_dates(f"{self.setting}_cert", self.cert, chain[:1])
        if content.ca is not None:
            authorities = _certificates(f"{self.setting}_ca", self.ca, content.ca)
            _check_dates(f"{self.setting}_ca", self.ca, authorities)

    def _private_key(self, key: bytes) -> PrivateKeyTypes:
        try:
            return load_pem_private_key(key, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):  # its text may be of the key
            raise ValueError(
                f"{self.setting}_key: expected a private key in PEM without a password, got "
                f"{self.key}, which holds none"
            ) from None


def _certificates(setting: str, file: Path | None, content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise ValueError(
            f"{setting}: expected certificates in PEM, got {file}, which holds none"
        ) from None


def _check_dates(setting: str, file: Path | None, any_of: Iterable[x509.Certificate]) -> None:
    now, problem = datetime.now(UTC), ""
    for certificate in any_of:
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if begin <= now <= end:
            return
        problem = f"expired at {end:%FT%TZ}" if now > end else f"is valid from {begin:%FT%TZ} on"
    raise ValueError(
        f"{setting}: expected a certificate that is valid now, {now:%FT%TZ}, got {file}, which "
        f"{problem}"
    )


class ReloadedCertificates:
    """Certificates in use, which follow their files.

    Attributes:
        current: The latest content of the files that passed the check.
    """

    def __init__(self, files: CertificateFiles) -> None:
        """Reads the files.

        Raises:
            ValueError: a file cannot be read, or used; the message names it.
        """
        self._files = files
        self._refused: Certificates | str | None = None  # latest content, or reason for none
        self.current = files.content()
        files.check(self.current)

    def changed(self) -> Certificates | None:
        """Returns the content of the files if it has changed; None if the current one stays.

        A change that cannot be used is logged once. It may be half of one, between the writing of
        a certificate and of its key, and is tried again: it may only not be valid yet.
        """
        content: Certificates | None = None
        try:
            content = self._files.content()
            if content != self.current:
                self._files.check(content)
        except ValueError as error:
            refused = str(error) if content is None else content
            if refused != self._refused:
                logger.warning("the certificates in use stay: %s", error)
                self._refused = refused
            return None
        self._refused = None
        if content == self.current:
            return None
        self.current = content
        logger.info("certificates were read again", extra={"file": str(self._files.cert)})
        return content


def server_credentials(certificates: ReloadedCertificates) -> grpc.ServerCredentials:
    """Returns the credentials of a server, which reads its files again at each new connection.

    Open connections stay as they are. A client needs a certificate if there are authorities for it.
    """

    def configuration(content: Certificates) -> grpc.ServerCertificateConfiguration:
        if content.cert is None or content.key is None:
            raise ValueError("expected a certificate and its key, got none")
        return grpc.ssl_server_certificate_configuration([(content.key, content.cert)], content.ca)

    def changed() -> Any:  # None keeps the current one, which gRPC's stubs do not say
        content = certificates.changed()
        return None if content is None else configuration(content)

    current = certificates.current
    return grpc.dynamic_ssl_server_credentials(
        configuration(current), changed, require_client_authentication=current.ca is not None
    )


def channel_credentials(content: Certificates) -> grpc.ChannelCredentials:
    """Returns the credentials of a channel, which keeps them as long as it is open."""
    return grpc.ssl_channel_credentials(content.ca, content.key, content.cert)
