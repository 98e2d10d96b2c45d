"""The exporter that the standard OTEL_ environment variables select for spans or metrics.

Source: OpenTelemetry specification, "Environment Variable Specification".
"""

import os
from collections.abc import Mapping
from typing import Literal

Signal = Literal["TRACES", "METRICS"]
SIGNALS: tuple[Signal, ...] = ("TRACES", "METRICS")
EXPORTERS = ("otlp", "console", "none")
GRPC, HTTP = "grpc", "http/protobuf"  # protocols of OTLP


def selected_exporter(signal: Signal, environment: Mapping[str, str] = os.environ) -> str:
    """Returns the exporter of a signal: "otlp", "console" or "none".

    Raises:
        ValueError: OTEL_..._EXPORTER names an unknown exporter.
    """
    if sdk_disabled(environment):
        return "none"
    endpoints = (f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    default = "otlp" if any(environment.get(name) for name in endpoints) else "none"
    variable = f"OTEL_{signal}_EXPORTER"
    exporter = environment.get(variable) or default
    if exporter not in EXPORTERS:
        advice = "; Prometheus has --metrics-port" if signal == "METRICS" else ""
        raise ValueError(
            f"{variable}: expected one of {', '.join(EXPORTERS)}, got {exporter!r}{advice}"
        )
    return exporter


def sdk_disabled(environment: Mapping[str, str]) -> bool:
    """Returns whether OTEL_SDK_DISABLED turns off spans and metrics."""
    return environment.get("OTEL_SDK_DISABLED", "").lower() == "true"


def otlp_protocol(signal: Signal, environment: Mapping[str, str] = os.environ) -> str:
    """Returns the protocol of OTLP for a signal: GRPC, the default, or HTTP."""
    own = environment.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL")
    return own or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL") or GRPC


def otlp_endpoint(signal: Signal, environment: Mapping[str, str] = os.environ) -> str:
    """Returns the URL or address of the collector of a signal; "" for the protocol's default."""
    own = environment.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    return own or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT") or ""
