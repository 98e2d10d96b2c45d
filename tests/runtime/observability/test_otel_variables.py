"""OTEL_ variables that cannot be obeyed end a process at its start, by name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.runtime.observability.otel_variables import check_variables

ENDPOINT, TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
HTTP = {PROTOCOL: "http/protobuf"}


@pytest.mark.parametrize(
    ("name", "value", "others"),
    [
        (ENDPOINT, "collector", {}),
        (ENDPOINT, "http://", {}),
        (ENDPOINT, "http://collector:99999", {}),
        (ENDPOINT, "http://collector:otlp", {}),
        (ENDPOINT, "htp://collector:4317", {}),
        (ENDPOINT, "http://a collector:4317", {}),
        (ENDPOINT, "collector:4318", HTTP),
        (TRACES, "collector:4318", {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}),
        (PROTOCOL, "http/json", {}),
        (PROTOCOL, "GRPC", {}),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "thrift", {}),
        ("OTEL_TRACES_EXPORTER", "zipkin", {}),
        ("OTEL_TRACES_EXPORTER", "otlp,console", {}),
        ("OTEL_METRICS_EXPORTER", "prometheus", {}),
        ("OTEL_LOGS_EXPORTER", "otlp", {}),
        ("OTEL_CONFIG_FILE", "otel.yaml", {}),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", {}),
        ("OTEL_TRACES_SAMPLER", " always_on", {}),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5", {"OTEL_TRACES_SAMPLER": "traceidratio"}),
        ("OTEL_TRACES_SAMPLER_ARG", "nan", {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}),
        ("OTEL_TRACES_SAMPLER_ARG", "a tenth", {"OTEL_TRACES_SAMPLER": "TraceIdRatio"}),
        ("OTEL_BSP_SCHEDULE_DELAY", "5s", {}),
        ("OTEL_BSP_EXPORT_TIMEOUT", "-1", {}),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", {}),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100", {}),  # less than a batch
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1e3", {}),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many", {}),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "-1", {}),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment", {}),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=1,=2", {}),
        ("OTEL_PROPAGATORS", "b3", {}),
        ("OTEL_PROPAGATORS", "tracecontext,xray", {}),
        ("OTEL_SDK_DISABLED", "yes", {}),
        ("OTEL_METRIC_EXPORT_INTERVAL", "often", {}),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "inf", {}),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "sometimes", {}),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", {}),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0", {}),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "deflate", {}),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli", HTTP),
        ("OTEL_EXPORTER_OTLP_INSECURE", "1", {}),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem", {}),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/", {}),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "both", {}),
        ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "sum", {}),
        ("OTEL_PYTHON_EXPORTER_OTLP_GRPC_CREDENTIAL_PROVIDER", "gcp", {}),
        ("OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES", "LATER", {}),
    ],
)
def test_a_value_that_cannot_be_obeyed_is_refused_by_the_name_of_its_variable(
    name: str, value: str, others: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected .*got "):
        check_variables({name: value, **others})


def test_nothing_else_is_checked_where_the_sdk_is_disabled() -> None:
    check_variables({"OTEL_SDK_DISABLED": "TRUE", ENDPOINT: "collector", "OTEL_PROPAGATORS": "b3"})


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {ENDPOINT: "http://collector:4317"},
        {ENDPOINT: "https://collector.example/otlp"},
        {ENDPOINT: "collector:4317"},
        {ENDPOINT: "http://[::1]:4317"},
        {ENDPOINT: "[::1]:4317"},
        {ENDPOINT: "http://collector:4318", **HTTP},
        {TRACES: "collector:4317", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc", **HTTP},
        {"OTEL_TRACES_SAMPLER": "ParentBased_TraceIdRatio", "OTEL_TRACES_SAMPLER_ARG": "0.25"},
        {"OTEL_TRACES_SAMPLER": "always_on", "OTEL_TRACES_SAMPLER_ARG": "anything"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "100", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "100"},
        {"OTEL_PROPAGATORS": "tracecontext, baggage"},
        {"OTEL_PROPAGATORS": "none"},
        {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=a%20test, k8s.node=b=c,"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20x,api-key=1"},
        {"OTEL_EXPORTER_OTLP_TIMEOUT": "2.5", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"},
        {"OTEL_LOGS_EXPORTER": "none"},
        {"HTTP_PROXY": "not ours"},
    ],
)
def test_what_can_be_obeyed_passes(environment: dict[str, str]) -> None:
    check_variables(dict(environment))


def test_an_empty_variable_is_as_none() -> None:
    environment = {"OTEL_EXPORTER_OTLP_TIMEOUT": "", "OTEL_TRACES_SAMPLER": " ", "OTHER": ""}
    check_variables(environment)
    assert environment == {"OTHER": ""}


def test_headers_which_may_be_secret_are_not_repeated() -> None:
    with pytest.raises(ValueError, match=r"^OTEL_EXPORTER_OTLP_HEADERS: ") as refused:
        check_variables({"OTEL_EXPORTER_OTLP_HEADERS": "Bearer s3cret"})
    assert "s3cret" not in str(refused.value)


def test_a_client_certificate_and_its_key_come_together(tmp_path: Path) -> None:
    file = tmp_path / "a.pem"
    file.write_text("x")
    with pytest.raises(ValueError, match=r"^OTEL_EXPORTER_OTLP_CLIENT_KEY: expected a file"):
        check_variables({"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(file)})


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("-m", "services.orchestrator"), "cannot start: {}: expected"),
        (("-c", "from tools.cli.main import main; main()", "--version"), "muse: {}: expected"),
    ],
)
@pytest.mark.parametrize("name", ["OTEL_PROPAGATORS", "OTEL_EXPORTER_OTLP_TIMEOUT"])
def test_a_process_ends_at_its_start_with_the_sentence_and_no_traceback(
    command: tuple[str, ...], said: str, name: str
) -> None:
    environment = {each: value for each, value in os.environ.items() if "OTEL_" not in each}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), name: "unknown"}
    ended = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=60,
    )
    assert ended.returncode == 1
    assert said.format(name) in ended.stderr
    assert "Traceback" not in ended.stderr
