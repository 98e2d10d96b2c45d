"""The exporter that the standard OTEL_ environment variables select for spans or metrics.

Source: OpenTelemetry specification, "Environment Variable Specification".
"""

import os
from collections.abc import Mapping
from typing import Literal

EXPORTERS = ("otlp", "console", "none")


def selected_exporter(
    signal: Literal["TRACES", "METRICS"], environment: Mapping[str, str] = os.environ
) -> str:
    """Returns the exporter of a signal: "otlp", "console" or "none".

    Raises:
        ValueError: OTEL_..._EXPORTER names an unknown exporter.
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
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
