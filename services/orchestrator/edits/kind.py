"""The description of one edit kind, and the decoded source that every kind works on."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, UInt8
from muse.common.v1.decoding_pb2 import Sampling
from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest

from services.orchestrator.image_task import ImageHandler, RequestContext
from services.pictures.files import ReadPicture, SourcePicture

Mask: TypeAlias = Bool[np.ndarray, "h w"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """The decoded input of an edit.

    Attributes:
        edit: Name of the edit kind: the field of the request's `edit` oneof.
        rgb: Pixels of the source picture.
        mask: True at pixels to repaint; None for an edit kind without a mask.
    """

    edit: str
    rgb: UInt8[np.ndarray, "h w 3"]
    mask: Mask | None


@dataclass(frozen=True, kw_only=True)
class EditKind:
    """Everything that the orchestrator needs to know about one edit kind.

    Attributes:
        name: Name of the field in the request's `edit` oneof; the message has a field `image`.
        check: Raises a RequestError if a number of the request is out of range. Runs before the
            picture is read.
        prepare: Encodes the source once for all images of a request; returns the handler that
            makes each image.
        needs_prompt: Whether an empty prompt is refused.
        base_sampling: Sampling parameters of the base that go before the stage's defaults and
            after those of the request, from the request and the checkpoint's own for mask-free
            edits.
        results: Number of pictures that each image of `count` returns.
        windows: Number of squares that each image of `count` is decoded in.
        result_size: Height and width of a result, from height and width of the source.
        read_mask: Returns the mask of a source picture, which its last argument reads, or raises a
            RequestError if the picture does not suit the request.
    """

    name: str
    check: Callable[[GenerateRequest], None]
    prepare: Callable[[RequestContext, Source], Awaitable[ImageHandler]]
    needs_prompt: bool = True
    base_sampling: Callable[[GenerateRequest, Sampling], Sampling] = lambda request, own: Sampling()
    results: Callable[[GenerateRequest], int] = lambda request: 1
    windows: Callable[[GenerateRequest, Source], int] = lambda request, source: 1
    result_size: Callable[[GenerateRequest, int, int], tuple[int, int]] = (
        lambda request, height, width: (height, width)
    )
    read_mask: Callable[[GenerateRequest, SourcePicture, ReadPicture], Mask | None] = (
        lambda request, picture, read: None
    )
