"""The process around the application: logs, traces, metrics, signals, and a graceful end."""

import logging
import os
import signal
from collections.abc import Iterator
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

from services.gateway.app import gateway_app
from services.gateway.limits import PROBES
from services.gateway.settings import GatewaySettings
from services.runtime.observability.logs import configure_logs
from services.runtime.observability.metrics import meter_provider
from services.runtime.observability.otel_variables import check_variables
from services.runtime.observability.tracing import configure_tracing
from services.runtime.server.certificates import CertificateFiles

logger = logging.getLogger(__name__)
NAME = "muse.gateway"
MAX_HEAD_BYTES = 64 * 2**10  # of a request's line and headers


class GatewayServer(uvicorn.Server):
    """A server that says in the log where it listens, and ends as any process here does."""

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
        """Ends at SIGTERM and SIGINT; uvicorn's own raises the signal again when it has ended."""
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
        _check_certificate(settings)
        with ExitStack() as at_end:
            at_end.callback(configure_tracing(NAME))
            registry = CollectorRegistry()
            reader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
            provider, end = meter_provider(NAME, [reader])
            at_end.callback(end)
            server = uvicorn_server(settings, registry, provider)
            with suppress(SystemExit):  # its own status of a start that failed, which it has logged
                server.run()
    except ValueError as error:
        logger.error("cannot start: %s", error)
        raise SystemExit(1) from None
    if not server.started:
        raise SystemExit(1)
    logger.info("stopped")


def _check_certificate(settings: GatewaySettings) -> None:
    if settings.tls_cert is not None:
        files = CertificateFiles(
            setting="tls", cert=settings.tls_cert, key=settings.tls_key, ca=None
        )
        files.check(files.content())
    if settings.speaks_plainly_to_others:
        logger.warning("insecure: requests to %s are not encrypted", settings.host)


def uvicorn_server(
    settings: GatewaySettings, registry: CollectorRegistry, meters: Any
) -> GatewayServer:
    """Returns the server of an application that is traced and measured.

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
        made = gateway_app(client, settings, lambda: generate_latest(registry).decode())
        FastAPIInstrumentor.instrument_app(
            made,
            tracer_provider=trace.get_tracer_provider(),
            meter_provider=meters,
            excluded_urls=",".join(PROBES),
            exclude_spans=["receive", "send"],
        )
        return made

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
        )
    )
