"""Command-line settings of the gateway."""

from dataclasses import dataclass
from pathlib import Path

from muse_client import Tls

from services.gateway.jobs.settings import JobSettings
from services.runtime.server.certificates import CertificateFiles
from services.runtime.server.tls_settings import check_key_pair
from services.stages import GATEWAY_PORT, ORCHESTRATOR_PORT


@dataclass(frozen=True, kw_only=True)
class GatewaySettings(JobSettings):
    """Settings of the gateway. The files of certificates are read again when they change.

    Metrics are at `/metrics` of its own port, or at that of `metrics_port` alone if there is one.

    Attributes:
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
        max_requests: Requests that may be open at once; further ones are refused.
        max_body_mib: Size of the largest body, in MiB: by default enough for any picture to edit
            and its mask.
        max_bodies_mib: Size together of the bodies of open requests, in MiB; further ones are
            refused. An edit takes about four times its body in memory.
        receive_timeout_s: Seconds that a body may take to arrive.
        page: Whether the web page is at /.
    """

    port: int = GATEWAY_PORT
    orchestrator: str = f"127.0.0.1:{ORCHESTRATOR_PORT}"
    orchestrator_tls_ca: Path | None = None
    orchestrator_tls_cert: Path | None = None
    orchestrator_tls_key: Path | None = None
    api_key: str = ""
    model_aliases: tuple[str, ...] = ()
    timeout_s: float = 300.0
    max_requests: int = 256
    max_body_mib: int = 88
    max_bodies_mib: int = 384
    receive_timeout_s: float = 120.0
    page: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_key_pair("orchestrator_tls", self.orchestrator_tls_cert, self.orchestrator_tls_key)
        if self.orchestrator_tls_cert is not None and self.orchestrator_tls_ca is None:
            raise ValueError(
                "orchestrator_tls_ca: expected the authorities of the orchestrator's certificate "
                "beside orchestrator_tls_cert, got none"
            )
        self._check_at_least_one("max_requests", "max_body_mib", "max_bodies_mib")
        self._check_above_zero("timeout_s", "receive_timeout_s")

    @property
    def certificate_files(self) -> CertificateFiles | None:
        """Files of the gateway's own certificate; None if it speaks plain text."""
        if self.tls_cert is None:
            return None
        return CertificateFiles(setting="tls", cert=self.tls_cert, key=self.tls_key, ca=None)

    @property
    def orchestrator_tls(self) -> Tls | None:
        """TLS towards the orchestrator; None for plain text."""
        if self.orchestrator_tls_ca is None:
            return None
        return Tls(
            ca=self.orchestrator_tls_ca,
            cert=self.orchestrator_tls_cert,
            key=self.orchestrator_tls_key,
        )
