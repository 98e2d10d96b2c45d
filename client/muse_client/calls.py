"""Requests and trace context, shared by both clients."""

from collections.abc import Mapping
from typing import Any, Literal

from muse.common.v1.caller_pb2 import Caller
from muse.common.v1.decoding_pb2 import Adapter, Sampling
from muse.orchestrator.v1 import orchestrator_pb2
from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest

from muse_client.edits import EditOptions
from muse_client.errors import invalid_request, set_fields
from muse_client.picture_files import PictureFormat

DEFAULT_PORT = 50050
DEFAULT_ADDRESS = f"127.0.0.1:{DEFAULT_PORT}"
DEFAULT_TIMEOUT_S = 300.0
STATUS_TIMEOUT_S = 15.0
# What an orchestrator accepts by default. The largest picture and its mask fit in, as PNG files too
# that cannot be compressed.
MAX_REQUEST_BYTES = 88 * 2**20
_LARGEST = {
    "seed": 2**64 - 1,
    **dict.fromkeys(("count", "best_of", "preview_every", "quality"), 2**32 - 1),
}
_ENUMS = {  # by field, whose name their values begin with
    "safety_policy": orchestrator_pb2.SafetyPolicy,
    "picture_format": orchestrator_pb2.PictureFormat,
}


class GenerateOptions(EditOptions, total=False):
    """Options of a request besides its prompt; at most one of them is an edit.

    Attributes:
        negative_prompt: Description of what the images must not show.
        seed: Seed of the first image; image i has seed + i. Drawn by the server if absent.
        count: Number of images; 1 if absent.
        base: Sampling parameters of the base; the server's defaults where not set.
        superres: Sampling parameters of the super-resolution.
        best_of: Number of candidates to rank; the `count` best are returned, best first. No
            ranking if absent.
        caller: Caller of the request, and its priority.
        preview_every: Steps between two previews in `Progress` events; no previews if absent.
        adapters: Weight of each low-rank adapter to apply, by its name: {"fox": 1.0}. None if
            absent.
        safety_policy: What is done with pictures that the server's classifier takes for explicit:
            its policy or a stricter one; its policy if absent.
        picture_format: Format of the images' files; PNG if absent.
        quality: Of JPEG and WebP, 0 to 100; 95 if absent.
    """

    negative_prompt: str
    seed: int | None
    count: int
    base: Sampling
    superres: Sampling
    best_of: int
    caller: Caller
    preview_every: int
    adapters: Mapping[str, float]
    safety_policy: Literal["tag", "blur", "block"]
    picture_format: PictureFormat
    quality: int


def sampling(**parameters: float | int | None) -> Sampling:
    """Returns the sampling parameters of one stage; None keeps the stage's default.

    Args:
        parameters: Fields of `Sampling` by name, such as steps=12.

    Raises:
        TypeError: `Sampling` has no such field.
        InvalidRequest: a value does not fit its field.
    """
    fields = Sampling.DESCRIPTOR.fields_by_name
    for name in parameters:
        if name not in fields:
            raise TypeError(f"sampling: expected some of {', '.join(fields)}, got {name!r}")
    return set_fields(Sampling(), parameters)


def generate_request(prompt: str, options: GenerateOptions, *, progress: bool) -> GenerateRequest:
    """Returns the message of a request; the server checks its ranges.

    Args:
        prompt: Description of the images.
        options: Options of the request.
        progress: Whether the server reports every step.

    Raises:
        InvalidRequest: a number or text does not fit its field, or the files are too large.
    """
    for name, largest in _LARGEST.items():
        value: Any = options.get(name)
        if value is not None and not 0 <= value <= largest:
            raise invalid_request(name, f"expected 0 to {largest}, got {value}")
    adapters = [_adapter(*item) for item in options.get("adapters", {}).items()]
    others: Any = {name: value for name, value in options.items() if name != "adapters"}
    for name, enum in _ENUMS.items():
        if (choice := others.get(name)) is not None:
            others[name] = _value(enum, name, choice)
    texts = {"prompt": prompt, "negative_prompt": options.get("negative_prompt", "")}
    for name, text in texts.items():
        _check_text(name, text)
    request = GenerateRequest(prompt=prompt, progress=progress, adapters=adapters, **others)
    size = request.ByteSize()
    if size > MAX_REQUEST_BYTES:
        raise invalid_request(
            request.WhichOneof("edit") or "prompt",
            f"expected a request of at most {MAX_REQUEST_BYTES / 2**20:g} MiB, got "
            f"{size / 2**20:.1f}: send JPEG or WebP files, or PNG files of 8 bits a channel",
        )
    return request


def _value(enum: Any, name: str, choice: str) -> int:
    """Returns the number of a choice, such as "block" of SAFETY_POLICY_BLOCK."""
    choices = [each.removeprefix(f"{name.upper()}_").lower() for each in enum.keys()[1:]]
    if choice not in choices:
        raise invalid_request(name, f"expected {' or '.join(choices)}, got {choice!r}")
    return int(enum.Value(f"{name.upper()}_{choice.upper()}"))


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise invalid_request(name, f"expected a text, got {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a character, or bytes that are no UTF-8
        raise invalid_request(
            name, f"expected a text of whole characters, got {text[error.start]!r} in it"
        ) from error


def _adapter(name: str, weight: float) -> Adapter:
    try:
        return Adapter(name=name, weight=weight)
    except (TypeError, ValueError) as error:
        raise invalid_request(
            "adapters", f"expected a name and a number, got {name!r}: {weight!r}"
        ) from error


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """Returns the caller's W3C trace context; empty without OpenTelemetry."""
    try:
        from opentelemetry.propagate import (  # type: ignore[import-not-found, unused-ignore]
            inject,
        )
    except ModuleNotFoundError:
        return ()
    carrier: dict[str, Any] = {}
    inject(carrier)
    return tuple(carrier.items())
