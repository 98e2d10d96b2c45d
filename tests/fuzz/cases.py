"""Cases of calls: which method, with how much time, and which request.

The first byte chooses the method, the second one of `KINDS`. What follows is the request itself,
or says how a good request is changed. Most cases have no time, so that what is valid costs little.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from tests.fuzz.choices import Choices
from tests.fuzz.messages import edited

Good = Mapping[str, list[Message]]
"""Good requests of each method, by its full name."""
NO_TIME_S, ENOUGH_S = 0.0, 60.0
# Whether the request is changed from a good one, and the time that the call has.
KINDS = (
    (False, ENOUGH_S),
    (True, ENOUGH_S),
    *((changed, NO_TIME_S) for _ in range(7) for changed in (False, True)),
)
RAW, CHANGED, RAW_WITHOUT_TIME, CHANGED_WITHOUT_TIME = range(4)


@dataclass(frozen=True)
class Case:
    """A call.

    Attributes:
        method: Full name of the method.
        request: Bytes of the request.
        left_s: Time that the call has.
    """

    method: str
    request: bytes
    left_s: float = ENOUGH_S


def read_case(content: bytes, good: Good) -> Case:
    """Returns the call that a case describes."""
    choices = Choices(content)
    method = choices.pick(_methods(good))
    changed, left_s = choices.pick(KINDS)
    if not changed:
        return Case(method, choices.rest(), left_s)
    copied: Any = choices.pick(good[method])
    message = type(copied)()
    message.CopyFrom(copied)
    return Case(method, edited(message, choices), left_s)


def case_of(method: str, good: Good, kind: int, rest: bytes) -> bytes:
    """Returns the bytes that describe a case."""
    return bytes([_methods(good).index(method), kind]) + rest


def _methods(good: Good) -> list[str]:
    """Returns all methods; GetStatus, whose request is empty, is seldom among them."""
    status = sorted(method for method in good if method.endswith("/GetStatus"))
    return sorted(good.keys() - set(status)) * 15 + status
