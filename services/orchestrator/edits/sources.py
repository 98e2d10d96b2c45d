"""What an edit is given: its picture and, if it has one, its mask; all checked, in pixels."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest, Inpaint

from services.orchestrator.edits.limits import MOST_EDITED_PIXELS
from services.orchestrator.edits.pictures import (
    HALF,
    SourcePicture,
    declared_pixels,
    read_mask,
    read_picture,
)
from services.runtime.errors import invalid_field


@dataclass(frozen=True, kw_only=True)
class Source:
    """What an edit is given.

    Attributes:
        edit: Which edit: its name in the request's `oneof`.
        rgb: The picture.
        mask: Its pixels to repaint; None where the edit takes no mask.
    """

    edit: str
    rgb: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"] | None


def result_pixels(request: GenerateRequest) -> int:
    """Returns how many pixels all results of an edit have, without decoding its picture.

    Args:
        request: Checked; an edit.

    Raises:
        RequestError: INVALID_ARGUMENT: what the picture's head shows is wrong.
    """
    edit = request.WhichOneof("edit") or ""
    pixels = declared_pixels(getattr(request, edit).image, f"{edit}.image")
    if pixels * request.count > MOST_EDITED_PIXELS:
        raise invalid_field(
            "count",
            expected=f"at most {MOST_EDITED_PIXELS // pixels} pictures of {pixels} pixels",
            got=request.count,
        )
    return pixels * request.count


def read_source(request: GenerateRequest) -> Source:
    """Decodes what an edit is given.

    Args:
        request: Checked; an edit.

    Raises:
        RequestError: INVALID_ARGUMENT: the picture or the mask is not what it may be.
    """
    edit = request.WhichOneof("edit") or ""
    picture = read_picture(getattr(request, edit).image, f"{edit}.image")
    mask = _mask(request.inpaint, picture) if edit == "inpaint" else None
    return Source(edit=edit, rgb=picture.rgb, mask=mask)


def drop_files(request: GenerateRequest) -> None:
    """Takes the files out of an edit, which have been read; its numbers stay."""
    edit = getattr(request, request.WhichOneof("edit") or "")
    edit.ClearField("image")
    if isinstance(edit, Inpaint):
        edit.ClearField("mask")


def _mask(inpaint: Inpaint, picture: SourcePicture) -> Bool[np.ndarray, "h w"]:
    field = "inpaint.mask"
    if inpaint.mask:
        mask = read_mask(inpaint.mask, field, picture.rgb.shape[:2])
        nothing = "one without a white pixel"
    elif picture.alpha is not None:
        mask = picture.alpha < HALF
        nothing = "none, and a picture without a transparent pixel"
    else:
        expected = "a mask, or a picture with alpha"
        raise invalid_field(field, expected=expected, got="neither")
    if not mask.any():
        raise invalid_field(
            field,
            expected="a mask that marks a pixel to repaint",
            got=nothing,
            advice="white is repainted, black kept",
        )
    return mask
