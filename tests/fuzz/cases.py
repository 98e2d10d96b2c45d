"""Cases of calls: which method, and its request as raw bytes or as a good one that is changed.

The first byte chooses the method. The second is even for a case whose rest is the request itself,
and odd for one whose rest says how a good request is changed.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from tests.fuzz.choices import Choices
from tests.fuzz.messages import edited

RAW, CHANGED = 0, 1


def request_of(content: bytes, good: Mapping[str, list[Message]]) -> tuple[str, bytes]:
    """Returns the method of a case and the bytes of its request.

    Args:
        content: The case.
        good: Good requests of each method, by its full name.
    """
    choices = Choices(content)
    method = choices.pick(sorted(good))
    if choices.below(2) == RAW:
        return method, choices.rest()
    copied: Any = choices.pick(good[method])
    message = type(copied)()
    message.CopyFrom(copied)
    return method, edited(message, choices)


def raw_case(method: str, request: bytes, good: Mapping[str, list[Message]]) -> bytes:
    """Returns the case of a method and the bytes of its request."""
    return bytes([sorted(good).index(method), RAW]) + request


def changed_case(
    method: str, index: int, changes: bytes, good: Mapping[str, list[Message]]
) -> bytes:
    """Returns the case of a good request that is changed."""
    return bytes([sorted(good).index(method), CHANGED, index]) + changes
