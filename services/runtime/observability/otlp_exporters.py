"""OTLP exporters of spans and metrics, over gRPC or HTTP as OTEL_EXPORTER_OTLP_PROTOCOL says.

Each module is imported where it is needed: a process without an exporter has none in memory.

Source: OpenTelemetry specification, "OpenTelemetry Protocol Exporter".
"""

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from muse_client.addresses import is_loopback

from services.runtime.observability.exporter_selection import (
    HTTP,
    Signal,
    otlp_endpoint,
    otlp_protocol,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace.export import SpanExporter


def span_exporter() -> "SpanExporter":
    """Returns the OTLP exporter of spans."""
    if otlp_protocol("TRACES") == HTTP:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
            OTLPSpanExporter as HttpSpanExporter,
        )

        return HttpSpanExporter(**_http_options("TRACES"))
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(**_grpc_options("TRACES"))


def metric_exporter() -> "MetricExporter":
    """Returns the OTLP exporter of metrics."""
    if otlp_protocol("METRICS") == HTTP:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import (
            OTLPMetricExporter as HttpMetricExporter,
        )

        return HttpMetricExporter(**_http_options("METRICS"))
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter(**_grpc_options("METRICS"))


def _grpc_options(signal: Signal) -> dict[str, Any]:
    return {"channel_options": (("grpc.enable_http_proxy", 0),)} if _is_here(signal) else {}


def _http_options(signal: Signal) -> dict[str, Any]:
    if not _is_here(signal):
        return {}
    import requests

    session = requests.Session()
    session.trust_env = False
    return {"session": session}


def _is_here(signal: Signal) -> bool:
    """Returns whether the collector is on this machine, which a proxy of the environment is not."""
    url = otlp_endpoint(signal) or "http://localhost"
    return is_loopback(urlsplit(url if "://" in url else f"//{url}").hostname or "")
