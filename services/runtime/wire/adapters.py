"""Checks of the low-rank adapters that a request names.

Source: protos/muse/common/v1/decoding.proto, which documents the range of each field.
"""

from collections.abc import Collection, Iterable, Sequence

import grpc
from muse.common.v1.decoding_pb2 import Adapter

from services.runtime.wire.errors import RequestError, invalid_field

MAX_ADAPTERS = 8  # of one request
MAX_WEIGHT = 10.0


def unpack_adapters(messages: Sequence[Adapter]) -> dict[str, float]:
    """Reads the field `adapters` of a request.

    Returns:
        The weight of each adapter by its name, 1 where the message has none.

    Raises:
        RequestError: INVALID_ARGUMENT: there are too many, a name is empty or there twice, or a
            weight is out of its range or not a number.
    """
    if len(messages) > MAX_ADAPTERS:
        raise invalid_field(
            "adapters", expected=f"at most {MAX_ADAPTERS} of them", got=len(messages)
        )
    weights: dict[str, float] = {}
    for index, message in enumerate(messages):
        field, weight = f"adapters[{index}]", message.weight if message.HasField("weight") else 1.0
        if not message.name:
            raise invalid_field(f"{field}.name", expected="a name", got="an empty one")
        if message.name in weights:
            raise invalid_field(
                f"{field}.name", expected="each name once", got=f"{message.name!r} again"
            )
        if not -MAX_WEIGHT <= weight <= MAX_WEIGHT:  # NaN is in no range
            raise invalid_field(
                f"{field}.weight", expected=f"{-MAX_WEIGHT:g} to {MAX_WEIGHT:g}", got=weight
            )
        weights[message.name] = weight
    return weights


def check_adapters(names: Iterable[str], served: Collection[str]) -> None:
    """Checks that the adapters of a request, in their order, are among those that are served.

    Raises:
        RequestError: NOT_FOUND: one is not; the message lists those that are.
    """
    for index, name in enumerate(names):
        if name not in served:
            known = f"one of {', '.join(sorted(served))}" if served else "none, for none are served"
            refusal = invalid_field(f"adapters[{index}].name", expected=known, got=repr(name))
            raise RequestError(
                grpc.StatusCode.NOT_FOUND, refusal.message, violations=refusal.violations
            )
