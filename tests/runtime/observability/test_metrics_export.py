"""Metrics that are sent over OTLP: whole, with exemplars, and never waited for."""

import asyncio
import socket
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import aclosing
from typing import Any

import grpc
import pytest
from muse.tokenizer.v1 import tokenizer_pb2
from opentelemetry.proto.collector.metrics.v1 import (
    metrics_service_pb2,
    metrics_service_pb2_grpc,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from services.runtime.observability import tracing
from services.runtime.observability.metrics import configure_metrics
from services.runtime.scheduling.device_thread import DeviceThread
from services.runtime.scheduling.inflight import InflightBatcher
from tests.runtime.conftest import Countdown, FakeDevice


class Receiver(metrics_service_pb2_grpc.MetricsServiceServicer):
    """Remembers what a process sends."""

    def __init__(self) -> None:
        self.received: list[Any] = []

    def Export(self, request: Any, context: Any) -> Any:
        self.received.append(request)
        return metrics_service_pb2.ExportMetricsServiceResponse()

    def metrics(self) -> dict[str, Any]:
        """What came last, by name, of the one process."""
        (resource,) = self.received[-1].resource_metrics
        attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
        assert attributes["service.name"] == "muse.tokenizer"
        return {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver of OTLP over gRPC that the environment names."""
    receiver, server = Receiver(), grpc.server(futures.ThreadPoolExecutor(1))
    add_to: Any = metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server
    add_to(receiver, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"http://127.0.0.1:{port}")
    yield receiver
    server.stop(None)


async def test_metrics_arrive_by_otlp(receiver: Receiver, calling: Any) -> None:
    _, end = configure_metrics("tokenizer")
    async with calling() as (stub, _):
        await stub.Decode(tokenizer_pb2.DecodeRequest())
    await asyncio.to_thread(end)

    (point,) = receiver.metrics()["muse.request.duration"].histogram.data_points
    assert point.count == 1
    assert {each.key: each.value.string_value for each in point.attributes} == {
        **{"stage": "tokenizer", "kind": "decode", "outcome": "OK"}
    }
    assert not point.exemplars  # nothing is traced


async def test_histograms_name_the_spans_of_sampled_calls_as_exemplars(
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    calling: Any,
    fake_device: type[FakeDevice],
    countdown: type[Countdown],
) -> None:
    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(tracing, "tracer", provider.get_tracer("test"))
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")  # what makes the interceptors appear
    thread = DeviceThread()
    batcher: InflightBatcher[Any, Any] = InflightBatcher(fake_device(slots=1), thread, max_queued=1)
    _, end = configure_metrics("tokenizer")
    async with calling() as (stub, _):
        await stub.Decode(tokenizer_pb2.DecodeRequest())
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Encode(tokenizer_pb2.EncodeRequest())
    with tracing.span("decode"):
        async with aclosing(batcher.events(countdown("first", 3), stream=False)) as events:
            assert len([event async for event in events]) == 1
    await asyncio.to_thread(end)
    await batcher.drain()
    thread.close()

    named = {
        (metric, exemplar.trace_id, exemplar.span_id)
        for metric in ("muse.request.duration", "muse.queue.duration")
        for point in receiver.metrics()[metric].histogram.data_points
        for exemplar in point.exemplars
    }
    finished = kept.get_finished_spans()
    calls = [span for span in finished if span.kind is SpanKind.SERVER]
    decodes = [span for span in finished if span.name == "decode"]
    assert (len(calls), len(decodes)) == (2, 1)
    assert named == {
        (metric, span.context.trace_id.to_bytes(16), span.context.span_id.to_bytes(8))
        for metric, spans in (("muse.request.duration", calls), ("muse.queue.duration", decodes))
        for span in spans
    }


async def test_a_collector_that_is_away_holds_up_nothing(
    monkeypatch: pytest.MonkeyPatch, calling: Any
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections, answers nothing
        monkeypatch.setenv(
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"http://127.0.0.1:{deaf.getsockname()[1]}"
        )
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "50")
        _, end = configure_metrics("tokenizer")
        async with calling() as (stub, _):
            begin_s = time.monotonic()
            for _ in range(20):
                await stub.Decode(tokenizer_pb2.DecodeRequest(), timeout=2)
                await asyncio.sleep(0.02)
            calls_s = time.monotonic() - begin_s
        begin_s = time.monotonic()
        await asyncio.to_thread(end)
        end_s = time.monotonic() - begin_s

    assert calls_s < 5
    assert end_s < 8
