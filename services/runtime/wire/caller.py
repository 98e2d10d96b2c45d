"""The caller of a request: the id that fair queueing goes by, and the priority.

Source: protos/muse/common/v1/caller.proto, which documents the range of each field.
"""

from dataclasses import dataclass
from enum import IntEnum

from muse.common.v1 import caller_pb2

from services.runtime.wire.errors import invalid_field

MAX_ID_LENGTH = 64


class Priority(IntEnum):
    """Urgency of a request; a smaller value goes first."""

    INTERACTIVE = 0
    BATCH = 1


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The caller of a request.

    Attributes:
        id: Callers of the same priority share the slots fairly, weighted by the cost of their
            requests. All requests with the empty id count as one caller's.
        priority: A request of a more urgent priority starts first.
    """

    id: str = ""
    priority: Priority = Priority.INTERACTIVE


ANONYMOUS = Caller()


def unpack_caller(message: caller_pb2.Caller) -> Caller:
    """Reads the caller from a request's message.

    Raises:
        RequestError: INVALID_ARGUMENT: the priority is unknown, or the id is too long.
    """
    if message.priority not in caller_pb2.Priority.values():
        raise invalid_field(
            "caller.priority", expected="interactive (1) or batch (2)", got=message.priority
        )
    if len(message.id) > MAX_ID_LENGTH:
        raise invalid_field(
            "caller.id",
            expected=f"at most {MAX_ID_LENGTH} characters",
            got=f"{len(message.id)} characters",
        )
    batch = message.priority == caller_pb2.PRIORITY_BATCH
    return Caller(id=message.id, priority=Priority.BATCH if batch else Priority.INTERACTIVE)
