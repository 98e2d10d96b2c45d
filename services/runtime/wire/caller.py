"""On whose behalf a request is made, and how urgent it is.

Source: protos/muse/common/v1/claim.proto, which says what each field may hold.
"""

from dataclasses import dataclass
from enum import IntEnum

from muse.common.v1 import claim_pb2

from services.runtime.wire.errors import invalid_field

LONGEST_NAME = 64


class Priority(IntEnum):
    """How urgent a request is; the smaller goes first."""

    INTERACTIVE = 0
    BATCH = 1


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Who asks for a slot, and how urgent it is.

    Attributes:
        priority: Whoever is more urgent is seated first.
        caller: Callers of the same priority get slots in turn, by what their requests cost. All
            requests without a name are one caller's.
    """

    priority: Priority = Priority.INTERACTIVE
    caller: str = ""


ANYBODY = Claim()


def unpack_claim(message: claim_pb2.Claim) -> Claim:
    """Reads on whose behalf a request is made.

    Raises:
        RequestError: INVALID_ARGUMENT: there is no such priority, or the name is too long.
    """
    if message.priority not in claim_pb2.Priority.values():
        raise invalid_field(
            "claim.priority", expected="interactive (1) or batch (2)", got=message.priority
        )
    if len(message.caller) > LONGEST_NAME:
        raise invalid_field(
            "claim.caller",
            expected=f"at most {LONGEST_NAME} characters",
            got=f"{len(message.caller)} characters",
        )
    batch = message.priority == claim_pb2.PRIORITY_BATCH
    return Claim(priority=Priority.BATCH if batch else Priority.INTERACTIVE, caller=message.caller)
