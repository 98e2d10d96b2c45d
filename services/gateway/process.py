"""The process around the application: logs, traces, metrics, signals, and a graceful end."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import uvicorn
from fastapi import FastAPI
from muse_client import AsyncMuseClient
from muse_client.addresses import endpoint, reachable
from opentelemetry import trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy.engine import URL

from services.gateway.app import gateway_app
from services.gateway.jobs.database.connections import migrate
from services.gateway.jobs.service import JobService
from services.gateway.limits import PROBES
from services.gateway.settings import GatewaySettings
from services.runtime.observability.logs import configure_logs
from services.runtime.observability.metrics import meter_provider, prometheus_endpoint
from services.runtime.observability.otel_variables import check_variables
from services.runtime.observability.tracing import configure_tracing
from services.runtime.server.certificates import ReloadedCertificates

logger = logging.getLogger(__name__)
NAME = "muse.gateway"
MAX_HEAD_BYTES = 64 * 2**10  # of a request's line and headers
RENEWAL_S = 10.0  # between two looks at the files of the certificate


class GatewayServer(uvicorn.Server):
    """A server that logs its address, follows its certificate's files, and ends as any server here.

    Attributes:
        certificates: Its certificate; None in plain text.
        jobs_database: Database that has the tables of this version when it starts; None for none.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        certificates: ReloadedCertificates | None,
        jobs_database: URL | None,
    ) -> None:
        """Serves by a configuration; `run` starts."""
        super().__init__(config)
        self.certificates, self.jobs_database = certificates, jobs_database
        if certificates is not None:
            config.callback_notify, config.timeout_notify = self.renew_certificate, int(RENEWAL_S)

    async def renew_certificate(self) -> None:
        """Takes the certificate's files for new connections, if they have changed."""
        if self.certificates is None or self.certificates.changed() is None:
            return
        assert self.config.ssl is not None
        assert self.config.ssl_certfile is not None
        try:
            self.config.ssl.load_cert_chain(self.config.ssl_certfile, self.config.ssl_keyfile)
        except OSError as error:  # changed once more after the look: the next look takes that
            logger.warning("the certificate in use stays: %s", error)

    async def serve(self, sockets: Any = None) -> None:
        """Serves until it is to end.

        Raises:
            ValueError: the database of jobs, or a file of jobs, cannot be used.
        """
        if self.jobs_database is not None:
            await asyncio.to_thread(migrate, self.jobs_database)
        await super().serve(sockets)

    async def startup(self, sockets: Any = None) -> None:
        """Opens the port."""
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            scheme = "https" if self.config.is_ssl else "http"
            host = reachable(self.config.host)
            logger.info("serving", extra={"address": f"{scheme}://{endpoint(host, port)}"})

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ends at SIGTERM and SIGINT; uvicorn's own raises the signal again when it has ended.

        As in uvicorn's own, only the main thread can and does.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run_gateway(settings: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT; the whole life of a process.

    Raises:
        SystemExit: with status 1, if the gateway cannot start; one line of log says why.
    """
    configure_logs(NAME, settings.log_level)
    logger.info("loading", extra={"pid": os.getpid()})
    # The names of metrics that OpenTelemetry has declared stable.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    try:
        check_variables()
        if settings.speaks_plainly_to_others:
            logger.warning("insecure: requests to %s are not encrypted", settings.host)
        with ExitStack() as at_end:
            at_end.callback(configure_tracing(NAME))
            reader, metrics = _prometheus(settings, at_end)
            provider, end = meter_provider(NAME, [reader])
            at_end.callback(end)
            server = uvicorn_server(settings, provider, metrics)
            with suppress(SystemExit):  # its own status of a start that failed, which it has logged
                server.run()
    except ValueError as error:
        logger.error("cannot start: %s", error)
        raise SystemExit(1) from None
    if not server.started:
        raise SystemExit(1)
    logger.info("stopped")


def _prometheus(
    settings: GatewaySettings, at_end: ExitStack
) -> tuple[Any, Callable[[], str] | None]:
    """Returns the reader of metrics, and what the gateway's own port answers to `/metrics`."""
    if settings.metrics_port is not None:
        host = settings.metrics_host or settings.host
        reader, _, close = prometheus_endpoint(host, settings.metrics_port)
        at_end.callback(close)
        return reader, None
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
    return reader, lambda: generate_latest(registry).decode()


def uvicorn_server(
    settings: GatewaySettings, meters: Any, metrics: Callable[[], str] | None
) -> GatewayServer:
    """Returns the server of an application that is traced and measured.

    Args:
        settings: Of the gateway.
        meters: Provider of the meters that measure it.
        metrics: Returns what `/metrics` answers; None where a port of its own does.

    Raises:
        ValueError: an address or a file of certificates cannot be used.
    """

    def app() -> FastAPI:  # made where the event loop runs: gRPC's channel belongs to it
        client = AsyncMuseClient(
            settings.orchestrator,
            timeout_s=settings.timeout_s,
            tls=settings.orchestrator_tls,
            api_key=settings.api_key,
        )
        jobs = JobService(client, settings, meters) if settings.jobs_database else None
        made = gateway_app(client, settings, metrics, jobs)
        FastAPIInstrumentor.instrument_app(
            made,
            tracer_provider=trace.get_tracer_provider(),
            meter_provider=meters,
            excluded_urls=",".join(PROBES),
            exclude_spans=["receive", "send"],
        )
        return made

    files = settings.certificate_files
    certificates = None if files is None else ReloadedCertificates(files)
    return GatewayServer(
        uvicorn.Config(
            app,
            factory=True,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            http="h11",
            ws="none",
            timeout_graceful_shutdown=int(settings.grace_s),
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
        ),
        certificates,
        settings.database_url if settings.jobs_database else None,
    )
