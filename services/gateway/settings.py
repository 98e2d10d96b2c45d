"""Command-line settings of the gateway."""

from dataclasses import dataclass
from pathlib import Path

from muse_client import Tls
from muse_client.addresses import is_loopback, parse_host

from services.stages import ORCHESTRATOR_PORT


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """Settings of the gateway.

    Attributes:
        host: Address to listen on; only this machine by default. One that other machines reach
            needs tls_cert, or insecure.
        port: Port to listen on; 0 takes a free one.
        orchestrator: Address of the orchestrator.
        orchestrator_tls_ca: File of the authorities that sign the orchestrator's certificate, in
            PEM. With it the orchestrator is called over TLS, without it in plain text.
        orchestrator_tls_cert: File of the certificate that the orchestrator is shown, in PEM.
        orchestrator_tls_key: File of its private key, in PEM without a password.
        api_key: Credential of the gateway's own questions of what is served; those of requests are
            passed on as they come.
        model_aliases: Names of models that stand for what is served, for programs that name one.
        timeout_s: Seconds that a request may take.
        grace_s: Seconds that open requests may take to end after SIGTERM.
        max_requests: Requests that may be open at once; further ones are refused.
        max_body_mib: Size of the largest body, in MiB: by default enough for any picture to edit
            and its mask.
        receive_timeout_s: Seconds that a body may take to arrive.
        tls_cert: File of the gateway's certificate, in PEM, followed by those of intermediate
            authorities. Without one the gateway speaks plain HTTP.
        tls_key: File of the certificate's private key, in PEM without a password.
        insecure: Whether the gateway may speak plain HTTP where other machines reach it, such as
            behind an ingress that encrypts.
        log_level: The least severe level that is logged.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    orchestrator: str = f"127.0.0.1:{ORCHESTRATOR_PORT}"
    orchestrator_tls_ca: Path | None = None
    orchestrator_tls_cert: Path | None = None
    orchestrator_tls_key: Path | None = None
    api_key: str = ""
    model_aliases: tuple[str, ...] = ()
    timeout_s: float = 300.0
    grace_s: float = 30.0
    max_requests: int = 256
    max_body_mib: int = 88
    receive_timeout_s: float = 120.0
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure: bool = False
    log_level: str = "INFO"

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "host", parse_host(self.host))
        except ValueError as error:
            raise ValueError(f"host: {error}") from None
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port: expected 0 to 65535, got {self.port}")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert: expected tls_cert and tls_key, or neither, got one of them")
        if self.tls_cert is None and not is_loopback(self.host) and not self.insecure:
            raise ValueError(
                f"tls_cert: expected a certificate to listen on {self.host}, which other machines "
                "reach, got none; give tls_cert and tls_key, or insecure to speak plain HTTP there"
            )
        for name in ("max_requests", "max_body_mib"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("timeout_s", "receive_timeout_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: expected more than 0, got {getattr(self, name)}")
        if not 0 <= self.grace_s < float("inf"):
            raise ValueError(f"grace_s: expected at least 0, got {self.grace_s}")

    @property
    def orchestrator_tls(self) -> Tls | None:
        """TLS towards the orchestrator; None for plain text.

        Raises:
            ValueError: there is a certificate without its authorities or its key.
        """
        files = (self.orchestrator_tls_ca, self.orchestrator_tls_cert, self.orchestrator_tls_key)
        if files == (None, None, None):
            return None
        ca, cert, key = files
        return Tls(ca=ca, cert=cert, key=key)
