"""Export of metrics: an endpoint for Prometheus, and OTLP to a collector.

Off unless `--metrics-port` or the standard OTEL_ environment variables select an exporter; then no
provider exists and the SDK is not imported. `services.runtime.observability.instruments` defines
the metrics.

Source: OpenTelemetry specification, "Environment Variable Specification".
"""

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from muse_client.addresses import endpoint, reachable

from services.runtime.observability.exporter_selection import selected_exporter
from services.runtime.observability.instruments import INSTRUMENTS
from services.runtime.observability.otlp_exporters import metric_exporter

logger = logging.getLogger(__name__)
LAST_EXPORT_MS = 2000.0  # time limit of the last export, should the collector not answer


def configure_metrics(
    stage: str, *, host: str = "127.0.0.1", port: int | None = None
) -> tuple[int | None, Callable[[], None]]:
    """Starts the export of metrics, if an exporter or a port is selected; once a process.

    The endpoint has a free port for 0, and there is none for None.

    Returns:
        The endpoint's port, if there is one, and a function to call at the end of the process,
        which sends the last values.

    Raises:
        ValueError: the port is not available, or OTEL_METRICS_EXPORTER names an unknown exporter.
    """
    exporter = selected_exporter("METRICS")
    if exporter == "none" and port is None:
        return None, lambda: None
    readers, at_end = [], ExitStack()
    if port is not None:
        reader, port, close = prometheus_endpoint(host, port)
        at_end.callback(close)
        readers.append(reader)
    provider, end = meter_provider(f"muse.{stage}", readers)
    at_end.callback(end)
    for instrument in INSTRUMENTS:
        instrument.bind(provider.get_meter("muse"), stage)
        at_end.callback(instrument.unbind)
    return port, at_end.close


def meter_provider(
    service_name: str, readers: Sequence[Any] = ()
) -> tuple[Any, Callable[[], None]]:
    """Returns a provider of meters, and a function to call at the end of the process.

    Args:
        service_name: Name of the process; OTEL_SERVICE_NAME overrides it.
        readers: What reads the metrics, besides the exporter that the environment selects.

    Raises:
        ValueError: OTEL_METRICS_EXPORTER names an unknown exporter.
    """
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    name = os.environ.get("OTEL_SERVICE_NAME") or service_name
    provider = MeterProvider(
        [*_periodic_readers(selected_exporter("METRICS")), *readers],
        resource=Resource.create({SERVICE_NAME: name}),
    )
    return provider, partial(_shut_down, provider)


def prometheus_endpoint(host: str, port: int) -> tuple[Any, int, Callable[[], None]]:
    """Starts an endpoint; returns its reader, its port, and a function that closes it.

    Raises:
        ValueError: the port is not available.
    """
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ValueError(
            f"cannot listen on {endpoint(host, port)} for metrics ({error.strerror}): "
            "is another server there? Name another --metrics-port"
        ) from error
    address = f"http://{endpoint(reachable(host), server.server_port)}/metrics"
    logger.info("metrics", extra={"address": address})

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    reader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
    return reader, server.server_port, close


def _periodic_readers(exporter: str) -> list[Any]:
    """Returns the readers that export every OTEL_METRIC_EXPORT_INTERVAL ms on their own threads."""
    if exporter == "none":
        return []
    from opentelemetry.sdk.metrics.export import (
        ConsoleMetricExporter,
        PeriodicExportingMetricReader,
    )

    if exporter == "console":
        return [PeriodicExportingMetricReader(ConsoleMetricExporter())]
    return [PeriodicExportingMetricReader(metric_exporter())]


def _shut_down(provider: Any) -> None:
    """Sends the last values within `LAST_EXPORT_MS`."""
    try:
        provider.shutdown(timeout_millis=LAST_EXPORT_MS)
    except Exception as error:  # a failing exporter must not keep the process running
        logger.warning("the last metrics were not sent: %s", error)
