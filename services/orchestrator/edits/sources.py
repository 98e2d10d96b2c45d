"""What an edit is given: its picture and, if it has one, its mask; all checked, in pixels."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest, Inpaint, Outpaint

from services.orchestrator.edits.limits import (
    LONGEST_SIDE_PX,
    MOST_EDITED_PIXELS,
    MOST_PIXELS,
    kept_of,
)
from services.orchestrator.edits.pictures import (
    HALF,
    SourcePicture,
    declared_size,
    read_mask,
    read_picture,
)
from services.orchestrator.edits.windows import windows
from services.runtime.wire.errors import invalid_field


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
    """Returns how many pixels all results of an edit have at most, without decoding its picture.

    Args:
        request: Checked; an edit.

    Raises:
        RequestError: INVALID_ARGUMENT: what the picture's head shows is wrong, or the results
            are too large.
    """
    edit = request.WhichOneof("edit") or ""
    one, other = declared_size(getattr(request, edit).image, f"{edit}.image")
    pictures = request.best_of or request.count
    if edit == "mask_free_edit":
        pictures *= len(kept_of(request.mask_free_edit))
    down = request.outpaint.top_px + request.outpaint.bottom_px
    across = request.outpaint.left_px + request.outpaint.right_px
    # Which side is the height is known once the picture is decoded.
    either = ((one + down) * (other + across), (other + down) * (one + across))
    pixels = min(either)
    if pixels > MOST_PIXELS:
        expected = f"a result of at most {MOST_PIXELS} pixels"
        raise invalid_field(edit, expected=expected, got=f"{pixels}", advice="extend it by less")
    if pixels * pictures > MOST_EDITED_PIXELS:
        raise invalid_field(
            "count",
            expected=f"at most {MOST_EDITED_PIXELS // pixels} pictures of {pixels} pixels in all",
            got=pictures,
        )
    return min(max(either) * pictures, MOST_EDITED_PIXELS)


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
    if edit == "outpaint":
        _check_extended(request.outpaint, picture)
    return Source(edit=edit, rgb=picture.rgb, mask=mask)


def drop_files(request: GenerateRequest) -> None:
    """Takes the files out of an edit, which have been read; its numbers stay."""
    edit = getattr(request, request.WhichOneof("edit") or "")
    edit.ClearField("image")
    if isinstance(edit, Inpaint):
        edit.ClearField("mask")


def _check_extended(outpaint: Outpaint, picture: SourcePicture) -> None:
    height = picture.height + outpaint.top_px + outpaint.bottom_px
    width = picture.width + outpaint.left_px + outpaint.right_px
    if max(height, width) > LONGEST_SIDE_PX or height * width > MOST_PIXELS:
        raise invalid_field(
            "outpaint",
            expected=f"a result of at most {MOST_PIXELS} pixels and sides of at most "
            f"{LONGEST_SIDE_PX}",
            got=f"{width} x {height}",
            advice="extend it by less",
        )
    windows(picture.height, picture.width, outpaint)


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
