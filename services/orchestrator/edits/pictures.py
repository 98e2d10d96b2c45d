"""Pictures and masks of edit requests, which `services.pictures.files` decodes."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import Bool
from PIL import Image

from services.orchestrator.edits.limits import MAX_PIXELS, MAX_SIDE_PX
from services.pictures import files
from services.pictures.errors import PictureError
from services.pictures.files import PictureLimits, ReadPicture, SourcePicture
from services.runtime.wire.errors import invalid_field

LIMITS = PictureLimits(min_side_px=16, max_side_px=MAX_SIDE_PX, max_pixels=MAX_PIXELS)
HALF = 128  # masks are white, and alpha is opaque, from this value on


def declared_size(content: bytes, field: str) -> tuple[int, int]:
    """Returns height and width from a file's header, without decoding the picture.

    The EXIF orientation is not applied, so the two may be swapped.

    Raises:
        RequestError: INVALID_ARGUMENT: as `read_picture`, as far as the header shows.
    """
    with _refused(field):
        return files.declared_size(content, LIMITS)


def read_picture(
    content: bytes, field: str, read: ReadPicture = files.read_picture
) -> SourcePicture:
    """Decodes a PNG, JPEG or WebP file; `field` is its path in the request.

    `read` decodes it, by default in this process.

    Raises:
        RequestError: INVALID_ARGUMENT: the file is of another format, broken or an animation, or
            the picture's size is outside the limits.
    """
    with _refused(field):
        return read(content, LIMITS)


def read_mask(
    content: bytes,
    field: str,
    size: tuple[int, int],
    read: ReadPicture = files.read_picture,
    *,
    is_alpha: bool = False,
) -> Bool[np.ndarray, "h w"]:
    """Decodes a mask of a picture's height and width: True from the grey value HALF on.

    Transparent pixels of a mask are black. With `is_alpha` they alone are True instead: those
    whose alpha is below HALF.

    Raises:
        RequestError: INVALID_ARGUMENT: as `read_picture`, the size differs, or a mask that is to
            mark by transparency has none.
    """
    with _refused(field):
        mask = read(content, LIMITS, backdrop="black")
    (height, width), got = size, mask.rgb.shape
    if got[:2] != size:
        raise invalid_field(
            field, expected=f"the picture's {width} x {height} pixels", got=f"{got[1]} x {got[0]}"
        )
    if not is_alpha:
        return np.asarray(Image.fromarray(mask.rgb).convert("L")) >= HALF
    if mask.alpha is None:
        raise invalid_field(
            field,
            expected="transparent pixels where the picture is repainted",
            got="a mask without transparency",
        )
    return mask.alpha < HALF


@contextmanager
def _refused(field: str) -> Iterator[None]:
    """Makes what a file's reader refuses a refusal of the request's field."""
    try:
        yield
    except PictureError as error:
        raise invalid_field(
            field, expected=error.expected, got=error.got, advice=error.advice
        ) from error
