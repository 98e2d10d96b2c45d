"""Spans and metrics that go to a collector over HTTP."""

import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from services.runtime.observability import span_export
from services.runtime.observability.metrics import configure_metrics
from services.runtime.observability.span_export import exporting_provider
from tests.conftest import Collector

PROXY = "http://127.0.0.1:1"  # nothing listens there


class HttpCollector(ThreadingHTTPServer):
    """A receiver of OTLP over HTTP, as a collector is, that keeps what arrives.

    Attributes:
        received: (path, content type, body), as they came.
        answers: Whether requests are answered.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[tuple[str, str, bytes]] = []
        self.answers = threading.Event()
        self.answers.set()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: HttpCollector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.received.append((self.path, self.headers["content-type"], body))
        self.server.answers.wait()
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Writes no line on standard error."""


@pytest.fixture
def http_collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpCollector]:
    for name in ("http_proxy", "HTTP_PROXY", "grpc_proxy"):
        monkeypatch.setenv(name, PROXY)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with HttpCollector() as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield server
        server.answers.set()
        server.shutdown()
        serving.join()


def one_span(server: HttpCollector) -> str:
    """Returns the name of the one span that arrived."""
    ((path, content_type, body),) = server.received
    assert (path, content_type) == ("/v1/traces", "application/x-protobuf")
    request = ExportTraceServiceRequest.FromString(body)
    return str(request.resource_spans[0].scope_spans[0].spans[0].name)


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        {
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        },
    ],
)
def test_spans_arrive_over_http_past_a_proxy_of_the_environment(
    http_collector: HttpCollector, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", http_collector.endpoint)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    provider, end = exporting_provider("otlp", "muse.test")
    with provider.get_tracer("test").start_as_current_span("request"):
        pass
    end()
    assert one_span(http_collector) == "request"


def test_spans_go_over_grpc_where_only_metrics_are_to_go_over_http(
    http_collector: HttpCollector, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", http_collector.endpoint)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    provider, end = exporting_provider("otlp", "muse.test")
    with provider.get_tracer("test").start_as_current_span("request"):
        pass
    end()
    assert [span.name for _, span in collector.spans] == ["request"]

    _, end_metrics = configure_metrics("tokenizer")
    end_metrics()
    ((path, _, body),) = http_collector.received
    assert path == "/v1/metrics"
    (resource,) = ExportMetricsServiceRequest.FromString(body).resource_metrics
    names = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert names["service.name"] == "muse.tokenizer"


def test_a_collector_that_does_not_answer_delays_the_end_of_a_process_by_its_limit_only(
    http_collector: HttpCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    http_collector.answers.clear()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", http_collector.endpoint)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    monkeypatch.setattr(span_export, "LAST_EXPORT_S", 0.3)
    provider, end = exporting_provider("otlp", "muse.test")
    with provider.get_tracer("test").start_as_current_span("request"):
        pass
    begun_s = time.monotonic()
    end()
    assert time.monotonic() - begun_s < 5  # an export takes up to ten seconds
