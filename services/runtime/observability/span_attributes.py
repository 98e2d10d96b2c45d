"""The names of everything that spans say, in one place.

Source: OpenTelemetry semantic conventions 1.44.0, "RPC" and "gRPC"; a test compares the names with
those of the package opentelemetry-semantic-conventions. What has no name there is under "muse.".
"""

import grpc

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
RPC_SYSTEM_NAME = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_STATUS = "rpc.response.status_code"
ERROR_TYPE = "error.type"

CALLER, TENANT = "muse.caller", "muse.tenant"  # of baggage, and of every span below it
LONGEST_BAGGAGE = 64  # characters of a value that are kept: callers choose them

Attributes = dict[str, str | int | float | bool]


def muse(name: str) -> str:
    """Returns the full name of an attribute of our own."""
    return f"muse.{name}"


def call(method: str) -> Attributes:
    """Returns what both sides say of a call.

    Args:
        method: Full name, such as "/muse.base.v1.BaseService/Generate".
    """
    return {RPC_SYSTEM_NAME: "grpc", RPC_METHOD: method.lstrip("/")}


def ending(code: grpc.StatusCode) -> Attributes:
    """Returns what both sides say of how a call ended."""
    if code is grpc.StatusCode.OK:
        return {RPC_STATUS: code.name}
    return {RPC_STATUS: code.name, ERROR_TYPE: code.name}


def picture(index: int, seed: int) -> Attributes:
    """Returns what is said of one picture of a request."""
    # A seed has 64 bits, and an attribute's whole number 63 and a sign.
    return {muse("picture"): index, muse("seed"): str(seed)}


def batch(*, requests: int, rows: int, bucket: int) -> Attributes:
    """Returns what is said of one batch, or one dispatch of slots.

    Args:
        requests: Those in it.
        rows: Rows that are theirs.
        bucket: Rows that the device computes, padding included.
    """
    return {
        muse("requests"): requests,
        muse("rows"): rows,
        muse("bucket"): bucket,
        muse("padding"): 1 - rows / bucket if bucket else 0.0,
    }


def steps(first: int, last: int) -> Attributes:
    """Returns what is said of the steps of one request in a dispatch, counted from 1."""
    return {muse("first_step"): first, muse("last_step"): last}


def hedged(copy: str) -> Attributes:
    """Returns what both copies of a call that was sent twice say of themselves.

    Args:
        copy: "first" or "second".
    """
    return {muse("hedged"): copy}
