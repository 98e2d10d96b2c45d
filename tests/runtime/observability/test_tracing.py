"""Spans of both sides of a call, in memory; and which logs are kept quiet."""

import logging
import os
import subprocess
import sys
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from muse.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from services.runtime.observability import span_attributes
from services.runtime.observability.call_spans import client_interceptors
from services.runtime.observability.logs import configure_logs
from services.runtime.observability.tracing import span
from services.runtime.server.process import Service, running_server
from services.runtime.server.settings import ServerSettings
from services.runtime.wire.errors import invalid_field


class Tokenizer(tokenizer_pb2_grpc.TokenizerServiceServicer):
    """Answers Decode and refuses Encode."""

    async def Decode(self, request: Any, context: Any) -> tokenizer_pb2.DecodeResponse:
        return tokenizer_pb2.DecodeResponse()

    async def Encode(self, request: Any, context: Any) -> tokenizer_pb2.EncodeResponse:
        raise invalid_field("pixels", expected="a picture", got="none")


async def nothing() -> None:
    """Warms up and closes nothing."""


async def traced(method: str) -> None:
    """Makes one call inside a span named root, and one watch of health."""
    service = Service(
        name="tokenizer",
        servicer=Tokenizer(),
        warm_up=nothing,
        close=nothing,
    )
    async with (
        running_server(service, ServerSettings()) as running,
        grpc.aio.insecure_channel(running.address, interceptors=client_interceptors()) as channel,
    ):
        stub: Any = tokenizer_pb2_grpc.TokenizerServiceStub(channel)
        with span("root"):
            watch: Any = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            await watch.read()
            watch.cancel()
            if method == "Decode":
                await stub.Decode(tokenizer_pb2.DecodeRequest())
            else:
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub.Encode(tokenizer_pb2.EncodeRequest())


def of_kind(spans: InMemorySpanExporter, kind: SpanKind) -> ReadableSpan:
    (found,) = [each for each in spans.get_finished_spans() if each.kind is kind]
    return found


async def test_one_trace_goes_from_the_caller_through_client_to_server(
    spans: InMemorySpanExporter,
) -> None:
    await traced("Decode")

    root, client, server = (
        of_kind(spans, kind) for kind in (SpanKind.INTERNAL, SpanKind.CLIENT, SpanKind.SERVER)
    )
    assert client.parent is not None
    assert client.parent.span_id == root.context.span_id
    assert server.parent is not None
    assert server.parent.span_id == client.context.span_id
    assert client.status.status_code is StatusCode.UNSET


async def test_calls_for_health_are_not_traced(spans: InMemorySpanExporter) -> None:
    await traced("Decode")

    names = [each.name for each in spans.get_finished_spans()]
    assert sorted(set(names)) == ["muse.tokenizer.v1.TokenizerService/Decode", "root"]


async def test_a_refused_call_is_an_error_on_both_sides(spans: InMemorySpanExporter) -> None:
    await traced("Encode")

    client = of_kind(spans, SpanKind.CLIENT)
    assert client.status.status_code is StatusCode.ERROR
    assert client.status.description == "INVALID_ARGUMENT"
    assert client.attributes is not None
    assert client.attributes[span_attributes.RPC_STATUS] == "INVALID_ARGUMENT"
    server = of_kind(spans, SpanKind.SERVER)
    assert server.status.status_code is StatusCode.ERROR
    assert server.attributes is not None
    assert server.attributes[span_attributes.ERROR_TYPE] == "INVALID_ARGUMENT"


def test_without_an_exporter_there_is_no_interceptor_and_no_provider(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_TRACES_EXPORTER",
    ):
        monkeypatch.delenv(name, raising=False)

    assert client_interceptors() == []
    assert not isinstance(trace.get_tracer_provider(), TracerProvider)


def test_a_server_process_without_an_exporter_does_not_import_the_sdk() -> None:
    script = (
        "import sys\n"
        "import services.runtime.server.process\n"
        "from services.runtime.observability.tracing import configure_tracing, span\n"
        "configure_tracing('muse.test')\n"
        "with span('block'): pass\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])\n"
    )
    environment = {name: value for name, value in os.environ.items() if "OTEL_" not in name}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    ended = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert (ended.stdout, ended.returncode) == ("[]\n", 0), ended.stderr


def test_jax_is_quiet_at_info_and_our_own_logs_are_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logs("muse.test", "INFO")
        logging.getLogger("jax._src.xla_bridge").info("Unable to initialize backend 'tpu'")
        logging.getLogger("services.test").info("serving")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)

    said = capsys.readouterr().err
    assert "serving" in said
    assert "backend" not in said
