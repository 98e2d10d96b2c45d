"""Command-line settings of servers."""

import math
from dataclasses import dataclass
from pathlib import Path

from muse_client.addresses import is_loopback, parse_host

from services.runtime.server.certificates import CertificateFiles
from services.runtime.server.tls_settings import check_clients, check_key_pair

LONGEST_S = 1e6  # gRPC counts milliseconds in 32 bits


@dataclass(frozen=True, kw_only=True)
class ListeningSettings:
    """Settings of whatever listens, for gRPC or HTTP.

    Attributes:
        host: Address to listen on, such as 0.0.0.0, or :: for IPv6 too; only this machine by
            default. One that other machines reach needs tls_cert, or insecure.
        port: Port to listen on; 0 takes a free one.
        grace_s: Seconds that open calls may take to end after SIGTERM.
        tls_cert: File of the server's certificate, in PEM, followed by those of intermediate
            authorities. Without one the server speaks plain text.
        tls_key: File of the certificate's private key, in PEM without a password.
        insecure: Whether the server may listen in plain text where other machines reach it, such
            as behind a mesh that encrypts.
        metrics_port: Port of the endpoint that Prometheus scrapes; 0 takes a free one. No endpoint
            by default.
        metrics_host: Address of that endpoint, which answers whoever reaches it; by default `host`.
        log_level: The least severe level that is logged.
    """

    host: str = "127.0.0.1"
    port: int = 0
    grace_s: float = 30.0
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure: bool = False
    metrics_port: int | None = None
    metrics_host: str | None = None
    log_level: str = "INFO"

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "host", parse_host(self.host))  # one spelling of an address
        except ValueError as error:
            raise ValueError(f"host: {error}") from None
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port: expected 0 to 65535, got {self.port}")
        check_key_pair("tls", self.tls_cert, self.tls_key)
        if self.speaks_plainly_to_others and not self.insecure:
            raise ValueError(
                f"tls_cert: expected a certificate to listen on {self.host}, which other machines "
                "reach, got none; give tls_cert and tls_key, or insecure to speak plain text there"
            )
        if not 0 <= self.grace_s < float("inf"):
            raise ValueError(f"grace_s: expected at least 0, got {self.grace_s}")
        self._check_port_beside("metrics_port")

    def _check_port_beside(self, name: str) -> None:
        number = getattr(self, name)
        if number is not None and not 0 <= number <= 65535:
            raise ValueError(f"{name}: expected 0 to 65535, got {number}")
        if number and number == self.port:
            raise ValueError(f"{name}: expected another number than port, got {number} for both")

    def _check_at_least_one(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")

    def _check_above_zero(self, *names: str, below: float = math.inf) -> None:
        limit = "" if math.isinf(below) else f" and less than {below:g}"
        for name in names:
            if not 0 < getattr(self, name) < below:
                raise ValueError(f"{name}: expected more than 0{limit}, got {getattr(self, name)}")

    @property
    def speaks_plainly_to_others(self) -> bool:
        """Whether the server speaks plain text on an address that other machines reach."""
        return self.tls_cert is None and not is_loopback(self.host)


@dataclass(frozen=True, kw_only=True)
class ServerSettings(ListeningSettings):
    """Settings of every gRPC server. The files of certificates are read again when they change.

    Attributes:
        max_message_mib: Size of the largest message, in MiB.
        max_metadata_kib: Size of the metadata of a call, in KiB: each name and value, and 32 bytes
            beside them. A call with more is refused.
        max_calls: Calls that may be open at once; further ones are refused. Health checks, which
            are not counted among them, may be as many.
        max_streams: Calls that may be open on one connection, health checks too; further ones wait
            at their client, or end as UNAVAILABLE.
        max_connections: Connections that may be open; further ones are closed at once.
        receive_timeout_s: Seconds that a request may take to arrive.
        max_arriving_mib: Largest size together of the requests that take long to arrive, in MiB;
            further ones are refused.
        max_connection_idle_s: Seconds after which a connection without calls is closed.
        max_connection_age_s: Seconds after which a connection takes no further calls; its client
            opens another.
        connection_grace_s: Seconds that the calls of such a connection may take to end. Also a
            call whose caller does not read the answer ends then.
        tls_ca: File of the authorities that sign clients' certificates, in PEM. With it a client
            needs a certificate.
        tls_clients: Clients whose calls are answered, by a SPIFFE URI or DNS name in their
            certificate; all that tls_ca vouches for by default. Health checks are answered to all.
        health_port: Port that answers health checks in plain text, and nothing else, for probes
            that do not speak TLS, such as those of Kubernetes; 0 takes a free one. No such port by
            default.
        introspection: Whether reflection and channelz describe the server to whoever asks; by
            default only if it listens on this machine alone.
    """

    max_message_mib: int = 32
    max_metadata_kib: int = 16
    max_calls: int = 256
    max_streams: int = 320
    max_connections: int = 1024
    receive_timeout_s: float = 120.0
    max_arriving_mib: int = 512
    max_connection_idle_s: float = 300.0
    max_connection_age_s: float = 1800.0
    connection_grace_s: float = 600.0
    tls_ca: Path | None = None
    tls_clients: tuple[str, ...] = ()
    health_port: int | None = None
    introspection: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_port_beside("health_port")
        if self.health_port and self.health_port == self.metrics_port:
            raise ValueError(
                "health_port: expected another number than metrics_port, got "
                f"{self.health_port} for both"
            )
        check_clients(self.tls_clients, self.tls_cert, self.tls_ca)
        self._check_at_least_one(
            "max_message_mib",
            "max_metadata_kib",
            "max_calls",
            "max_streams",
            "max_connections",
            "max_arriving_mib",
        )
        self._check_above_zero(
            "receive_timeout_s",
            "max_connection_idle_s",
            "max_connection_age_s",
            "connection_grace_s",
            below=LONGEST_S,
        )

    @property
    def certificate_files(self) -> CertificateFiles | None:
        """Files of the server's certificates; None if it speaks plain text."""
        if self.tls_cert is None:
            return None
        return CertificateFiles(setting="tls", cert=self.tls_cert, key=self.tls_key, ca=self.tls_ca)

    @property
    def introspects(self) -> bool:
        """Whether reflection and channelz describe the server."""
        return is_loopback(self.host) if self.introspection is None else self.introspection


@dataclass(frozen=True, kw_only=True)
class StageSettings(ServerSettings):
    """Settings of a server that computes.

    Attributes:
        max_batch_size: Requests computed together; the number of slots of base and superres.
        max_queued: Requests that may wait; further ones are refused. In base and superres one
            caller may fill half of the queue, so that others find room.
        compilation_cache: Folder that keeps compiled programs, so that the next start is fast. A
            read-only folder is read and not written; without one that can be created the server
            serves, and warns.
        compile_only: Compile everything into compilation_cache, then end instead of serving.
        checkpoint_key: File of the public key (minisign) that every file of the checkpoint must be
            signed with. By default no signature is asked for.
    """

    max_batch_size: int = 8
    max_queued: int = 64
    compilation_cache: Path | None = None
    compile_only: bool = False
    checkpoint_key: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_at_least_one("max_batch_size", "max_queued")
        if self.compile_only and self.compilation_cache is None:
            raise ValueError("compile_only: expected a compilation_cache to compile into, got none")


@dataclass(frozen=True, kw_only=True)
class BatchedServerSettings(StageSettings):
    """Settings of a server that batches whole requests.

    Attributes:
        max_wait_ms: Milliseconds a request waits for others while the device is free.
    """

    max_wait_ms: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.max_wait_ms < float("inf"):
            raise ValueError(f"max_wait_ms: expected at least 0, got {self.max_wait_ms}")
