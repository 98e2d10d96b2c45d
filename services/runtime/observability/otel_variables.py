"""Check of the standard OTEL_ environment variables, before anything else reads them.

Where the OpenTelemetry SDK cannot obey a variable it logs a warning and takes a default, or ends
with a traceback. A process of Muse ends with one sentence that names the variable.

Sources: OpenTelemetry specification, "Environment Variable Specification" and "OpenTelemetry
Protocol Exporter"; W3C Baggage, section 3.3 (lists of KEY=VALUE).
"""

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from importlib.metadata import entry_points
from itertools import product
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import grpc
from muse_client.addresses import parse_address

from services.runtime.observability.exporter_selection import (
    GRPC,
    HTTP,
    SIGNALS,
    otlp_protocol,
    sdk_disabled,
    selected_exporter,
)

RATIO_SAMPLERS = ("traceidratio", "parentbased_traceidratio")
SAMPLERS = (
    *RATIO_SAMPLERS,
    *("always_on", "always_off", "parentbased_always_on", "parentbased_always_off"),
)
# Limits of a span: of attributes, events and links, and of their attributes.
LIMITS = (
    "ATTRIBUTE_COUNT",
    "ATTRIBUTE_VALUE_LENGTH",
    *(f"SPAN_{each}_COUNT" for each in ("ATTRIBUTE", "EVENT", "LINK")),
    "SPAN_ATTRIBUTE_VALUE_LENGTH",
    *(f"{each}_ATTRIBUTE_COUNT" for each in ("EVENT", "LINK")),
)
PAIR = re.compile(r"[^\s\"(),/:;<=>?@\[\\\]{}]+\s*=[^\",;\\]*", re.ASCII)
LARGEST = 2**31 - 1


class Rule(NamedTuple):
    """The values that a variable may have: a test, and its description for the error."""

    expected: str
    obeyed: Callable[[str], bool]
    secret: bool = False


def _one_of(*values: str, case: bool = False) -> Rule:
    return Rule(" or ".join(values), lambda text: (text if case else text.lower()) in values)


def _whole(least: int) -> Rule:
    def obeyed(text: str) -> bool:
        return text.strip().isascii() and text.strip().isdigit() and least <= int(text) <= LARGEST

    return Rule(f"a whole number of {least} or more", obeyed)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _pairs(text: str) -> bool:
    return all(PAIR.fullmatch(each.strip()) for each in text.split(",") if each.strip())


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        named = parts.scheme in ("http", "https") and bool(parts.hostname)
        return named and parts.port != 0 and not re.search(r"\s", text)
    except ValueError:
        return False


def _is_address(text: str) -> bool:
    try:
        return bool(parse_address(text))
    except ValueError:
        return False


def _readable(text: str) -> bool:
    try:
        return bool(Path(text).read_bytes())
    except (OSError, ValueError):
        return False


def _installed(group: str, what: str, *others: str) -> Rule:
    """Returns the rule of a list of entry points."""

    def obeyed(text: str) -> bool:
        known = {each.name for each in entry_points(group=group)}.union(others)
        return all(each.strip() in known for each in text.split(","))

    return Rule(f"{what} that are installed", obeyed)


BOOLEAN = _one_of("true", "false")
SECONDS = Rule("a number of seconds above 0", lambda text: 0 < _number(text) < math.inf)
MILLISECONDS = Rule("a number of milliseconds above 0", SECONDS.obeyed)
SHARE = Rule("a share of 0 to 1", lambda text: 0 <= _number(text) <= 1)
FILE = Rule("a file that can be read and is not empty", _readable)
PAIRS = Rule("KEY=VALUE, or several separated by commas", _pairs)
ENDPOINTS = {
    GRPC: Rule(
        "http://HOST:PORT, https://HOST:PORT or HOST:PORT",
        lambda text: _is_url(text) or _is_address(text),
    ),
    HTTP: Rule("http://HOST:PORT/PATH or https://HOST:PORT/PATH", _is_url),
}
CREDENTIALS = _installed("opentelemetry_otlp_credential_provider", "credential providers")
CODES = Rule(
    "names of gRPC statuses, separated by commas",
    lambda text: (
        {each.strip().upper() for each in text.split(",")} <= set(grpc.StatusCode.__members__)
    ),
)
RULES = {
    "OTEL_SDK_DISABLED": BOOLEAN,
    "OTEL_CONFIG_FILE": Rule("no file: variables configure the export", lambda text: False),
    "OTEL_LOGS_EXPORTER": Rule("none: logs go to standard error", lambda text: text == "none"),
    "OTEL_PROPAGATORS": _installed("opentelemetry_propagator", "propagators", "none"),
    "OTEL_RESOURCE_ATTRIBUTES": PAIRS,
    "OTEL_TRACES_SAMPLER": _one_of(*SAMPLERS),
    "OTEL_BSP_SCHEDULE_DELAY": _whole(1),
    "OTEL_BSP_EXPORT_TIMEOUT": _whole(1),
    "OTEL_BSP_MAX_QUEUE_SIZE": _whole(1),
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": _whole(1),
    **{f"OTEL_{each}_LIMIT": _whole(0) for each in LIMITS},
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES": CODES,
    "OTEL_METRIC_EXPORT_INTERVAL": MILLISECONDS,
    "OTEL_METRIC_EXPORT_TIMEOUT": MILLISECONDS,
    "OTEL_METRICS_EXEMPLAR_FILTER": _one_of("trace_based", "always_on", "always_off", case=True),
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": _one_of(
        "cumulative", "delta", "lowmemory"
    ),
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": _one_of(
        "explicit_bucket_histogram", "base2_exponential_bucket_histogram", case=True
    ),
}
COMPRESSIONS = {GRPC: _one_of("gzip"), HTTP: _one_of("gzip", "deflate", "none")}
# Variables of the OTLP exporters: OTEL_EXPORTER_OTLP_... of both signals, or of one.
OTLP_RULES = {
    "PROTOCOL": _one_of(GRPC, HTTP, case=True),
    "TIMEOUT": SECONDS,
    "INSECURE": BOOLEAN,
    "HEADERS": PAIRS._replace(secret=True),
    "CERTIFICATE": FILE,
    "CLIENT_CERTIFICATE": FILE,
    "CLIENT_KEY": FILE,
}
SCOPES = ("", *(f"{signal}_" for signal in SIGNALS))


def check_variables(environment: MutableMapping[str, str] = os.environ) -> None:
    """Checks the OTEL_ variables, and removes those that are empty, which stand for none.

    Raises:
        ValueError: a variable has a value that cannot be obeyed.
    """
    for name in [name for name in environment if name.startswith("OTEL_")]:
        if not environment[name].strip():
            del environment[name]
    _check(environment, "OTEL_SDK_DISABLED", BOOLEAN)
    if sdk_disabled(environment):
        return
    for name, rule in _rules(environment):
        _check(environment, name, rule)
    for signal in SIGNALS:
        selected_exporter(signal, environment)
        _check_client_certificate(signal, environment)
    if environment.get("OTEL_TRACES_SAMPLER", "").lower() in RATIO_SAMPLERS:
        _check(environment, "OTEL_TRACES_SAMPLER_ARG", SHARE)
    queue = int(environment.get("OTEL_BSP_MAX_QUEUE_SIZE", 2048))
    batch = int(environment.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512))
    if batch > queue:
        raise ValueError(
            f"OTEL_BSP_MAX_QUEUE_SIZE: expected at least OTEL_BSP_MAX_EXPORT_BATCH_SIZE, {batch}, "
            f"got {queue}"
        )


def _check_client_certificate(signal: str, environment: Mapping[str, str]) -> None:
    """Checks that a client's certificate and its key come together."""
    present = {
        kind: any(
            f"OTEL_EXPORTER_OTLP_{scope}CLIENT_{kind}" in environment
            for scope in ("", f"{signal}_")
        )
        for kind in ("CERTIFICATE", "KEY")
    }
    for kind, other in (("CERTIFICATE", "KEY"), ("KEY", "CERTIFICATE")):
        if present[other] and not present[kind]:
            raise ValueError(
                f"OTEL_EXPORTER_OTLP_CLIENT_{kind}: expected a file beside "
                f"OTEL_EXPORTER_OTLP_CLIENT_{other}, got none"
            )


def _rules(environment: Mapping[str, str]) -> Iterator[tuple[str, Rule]]:
    """Yields the variables with their rules; the protocols come before what depends on them."""
    yield from RULES.items()
    for scope, (kind, rule) in product(SCOPES, OTLP_RULES.items()):
        yield f"OTEL_EXPORTER_OTLP_{scope}{kind}", rule
    for scope, kind in product(SCOPES, ("GRPC", "HTTP")):
        yield f"OTEL_PYTHON_EXPORTER_OTLP_{kind}_{scope}CREDENTIAL_PROVIDER", CREDENTIALS
    for signal in SIGNALS:
        protocol = otlp_protocol(signal, environment)
        for scope in ("", f"{signal}_"):
            yield f"OTEL_EXPORTER_OTLP_{scope}ENDPOINT", ENDPOINTS[protocol]
            yield f"OTEL_EXPORTER_OTLP_{scope}COMPRESSION", COMPRESSIONS[protocol]


def _check(environment: Mapping[str, str], name: str, rule: Rule) -> None:
    text = environment.get(name)
    if text is not None and not rule.obeyed(text):
        got = "another value, which may be secret" if rule.secret else repr(text)
        raise ValueError(f"{name}: expected {rule.expected}, got {got}")
