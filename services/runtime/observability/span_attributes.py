"""Names and values of span attributes.

Source: OpenTelemetry semantic conventions 1.44.0, "RPC" and "gRPC"; a test compares the names with
those of the package opentelemetry-semantic-conventions. The project's own names start with "muse.".
"""

import grpc
from opentelemetry import baggage
from opentelemetry.context import Context

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
RPC_SYSTEM_NAME = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_STATUS = "rpc.response.status_code"
ERROR_TYPE = "error.type"

CALLER, TENANT = "muse.caller", "muse.tenant"  # in the baggage, and on every span below it
MAX_BAGGAGE_LENGTH = 64  # characters kept of a baggage value, which callers choose

Attributes = dict[str, str | int | float | bool]


def muse(name: str) -> str:
    """Returns the full name of an attribute of this project."""
    return f"muse.{name}"


def call(method: str) -> Attributes:
    """Returns the attributes of a client or server span, given its method's full name."""
    return {RPC_SYSTEM_NAME: "grpc", RPC_METHOD: method.lstrip("/")}


def end_of_call(code: grpc.StatusCode) -> Attributes:
    """Returns the attributes that the status of a call adds to its client or server span."""
    if code is grpc.StatusCode.OK:
        return {RPC_STATUS: code.name}
    return {RPC_STATUS: code.name, ERROR_TYPE: code.name}


def caller(context: Context | None = None) -> Attributes:
    """Returns the caller and the tenant that the baggage names, each cut to its maximum length."""
    entries = baggage.get_all(context)
    return {
        name: str(entries[name])[:MAX_BAGGAGE_LENGTH]
        for name in (CALLER, TENANT)
        if name in entries
    }


def picture(index: int, seed: int) -> Attributes:
    """Returns the attributes of the span of one picture of a request."""
    # A seed has 64 bits; an integer attribute has 63 and a sign.
    return {muse("picture"): index, muse("seed"): str(seed)}


def batch(*, requests: int, rows: int, bucket: int) -> Attributes:
    """Returns the attributes of a batch or dispatch; a bucket is its rows with padding."""
    return {
        muse("requests"): requests,
        muse("rows"): rows,
        muse("bucket"): bucket,
        muse("padding"): 1 - rows / bucket if bucket else 0.0,
    }


def steps(first: int, last: int) -> Attributes:
    """Returns the attributes of the steps of one request in a dispatch, counted from 1."""
    return {muse("first_step"): first, muse("last_step"): last}


def hedged(copy: str) -> Attributes:
    """Returns the attribute of the "first" or "second" copy of a hedged call."""
    return {muse("hedged"): copy}
