"""Certificates of `muse up --tls`: an authority of the run's own, and a pair for each process.

The authority's key is in this process alone and is gone with it. Files are in the folder of the
run, which is removed at the end; only their owner may read them.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from muse_client import Tls

from services.stages import GATEWAY, ORCHESTRATOR
from tools.local.placement import LocalPod

VALID = timedelta(days=7)
CLOCK_SKEW = timedelta(minutes=5)
CLIENT = "client"


def identity(name: str) -> str:
    """Returns the SPIFFE URI of a Deployment's processes."""
    return f"spiffe://muse.local/{name}"


class LocalAuthority:
    """An authority that signs certificates of processes of this machine.

    Attributes:
        client: Certificate of whoever calls the orchestrator, and of the probes.
    """

    def __init__(self, folder: Path) -> None:
        """Makes the authority and the client's certificate; creates the folder."""
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "muse up")])
        folder.mkdir(mode=0o700)
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        signed = (
            self._builder(self._name, self._key.public_key())
            .add_extension(constraints, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._ca = folder / "ca.crt"
        _write(self._ca, signed.public_bytes(serialization.Encoding.PEM))
        cert, key = self._issue(CLIENT, CLIENT, ())
        self.client = Tls(ca=self._ca, cert=cert, key=key)

    def secured(self, pod: LocalPod) -> LocalPod:
        """Returns a pod that speaks TLS, with a certificate of its own.

        Whoever speaks gRPC needs a certificate, and stages accept the orchestrator's alone.
        """
        name = pod.deployment.name
        addresses = sorted({pod.address.host, "127.0.0.1"})  # the pod's, and its forwarded port's
        cert, key = self._issue(pod.name, name, addresses)
        variables = {"TLS_CERT": cert, "TLS_KEY": key, "TLS_CA": self._ca}
        called = {ORCHESTRATOR: "STAGE", GATEWAY: ORCHESTRATOR.upper()}.get(name)
        if called is not None:
            variables |= {f"{called}_{each}": file for each, file in variables.items()}
        environment = {f"MUSE_{each}": str(file) for each, file in variables.items()}
        if called is None:
            environment["MUSE_TLS_CLIENTS"] = identity(ORCHESTRATOR)
        return replace(pod, environment={**pod.environment, **environment}, tls=self.client)

    def _issue(self, file_name: str, name: str, addresses: Sequence[str]) -> tuple[Path, Path]:
        """Issues a certificate, for a server if it has addresses; returns it and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [
            x509.UniformResourceIdentifier(identity(name)),
            *(x509.IPAddress(ip_address(each)) for each in addresses),
            *([x509.DNSName("localhost")] if addresses else []),
        ]
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signed = (
            self._builder(subject, key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        files = self._folder / f"{file_name}.crt", self._folder / f"{file_name}.key"
        _write(files[0], signed.public_bytes(pem))
        _write(files[1], key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
        return files

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=subject,
            public_key=key,
            serial_number=x509.random_serial_number(),
            not_valid_before=now - CLOCK_SKEW,
            not_valid_after=now + VALID,
        )


def _write(file: Path, content: bytes) -> None:
    """Writes a new file that only its owner may read, from its first byte on."""
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(content)
