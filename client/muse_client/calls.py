"""What both clients have in common: requests, channel options, trace context."""

from typing import Any, TypedDict

from muse.common.v1.caller_pb2 import Caller
from muse.common.v1.decoding_pb2 import Sampling
from muse.orchestrator.v1.orchestrator_pb2 import (
    GenerateRequest,
    Inpaint,
    MaskFreeEdit,
    Outpaint,
    Vary,
)

from muse_client.errors import invalid_request

DEFAULT_ADDRESS = "127.0.0.1:50050"
DEFAULT_TIMEOUT_S = 300.0
STATUS_TIMEOUT_S = 15.0
CHANNEL_OPTIONS = (("grpc.max_receive_message_length", 64 * 2**20),)
_LARGEST = {"seed": 2**64 - 1, "count": 2**32 - 1, "best_of": 2**32 - 1, "preview_every": 2**32 - 1}


class GenerateOptions(TypedDict, total=False):
    """What a request may say besides its prompt.

    Attributes:
        negative_prompt: What the pictures must not show.
        seed: Of the first picture; picture i has seed + i. Drawn by the server if absent.
        count: Pictures; 1 if absent.
        base: Sampling parameters of the base; the servers' defaults where not set.
        superres: Sampling parameters of the super-resolution.
        best_of: Candidates to paint; the `count` best are returned, best first. All if absent.
        caller: Who asks, and how urgent it is.
        preview_every: Steps after which a `Progress` has a preview; none if absent.
        inpaint: Repaints part of a picture instead; `muse_client.edits` makes all four edits.
        outpaint: Extends a picture instead.
        mask_free_edit: Changes a picture instead, without a mask.
        vary: Paints a share of a picture anew instead.
    """

    negative_prompt: str
    seed: int | None
    count: int
    base: Sampling
    superres: Sampling
    best_of: int
    caller: Caller
    preview_every: int
    inpaint: Inpaint
    outpaint: Outpaint
    mask_free_edit: MaskFreeEdit
    vary: Vary


def sampling(**parameters: float | int | None) -> Sampling:
    """Returns the parameters of one stage; those that are None keep the stage's default.

    Args:
        parameters: Fields of `Sampling` by name, such as steps=12.

    Raises:
        TypeError: `Sampling` has no such field.
        InvalidRequest: a value does not fit its field; names it.
    """
    chosen, fields = Sampling(), Sampling.DESCRIPTOR.fields_by_name
    for name, value in parameters.items():
        if name not in fields:
            raise TypeError(f"sampling: expected some of {', '.join(fields)}, got {name!r}")
        if value is not None:
            try:
                setattr(chosen, name, value)
            except (TypeError, ValueError) as error:
                raise invalid_request(name, f"expected a number from 0 up, got {value}") from error
    return chosen


def generate_request(prompt: str, options: GenerateOptions, *, progress: bool) -> GenerateRequest:
    """Returns the message of a request; its ranges are the server's to check.

    Args:
        prompt: What the pictures show.
        options: What else the request says.
        progress: Whether the stream has an event after each step.

    Raises:
        InvalidRequest: a number does not fit its field.
    """
    for name, largest in _LARGEST.items():
        value: Any = options.get(name)
        if value is not None and not 0 <= value <= largest:
            raise invalid_request(name, f"expected 0 to {largest}, got {value}")
    return GenerateRequest(prompt=prompt, progress=progress, **options)


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """Returns the caller's trace as W3C context; nothing where OpenTelemetry is not in use."""
    try:
        from opentelemetry.propagate import inject
    except ModuleNotFoundError:
        return ()
    carrier: dict[str, Any] = {}
    inject(carrier)
    return tuple(carrier.items())
