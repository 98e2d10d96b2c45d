"""Edits as messages: pictures may be files' names, their bytes, or PIL images."""

import io
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from muse.orchestrator.v1.orchestrator_pb2 import Inpaint, MaskFreeEdit, Outpaint, Vary
from PIL import Image

from muse_client.errors import invalid_request

ImageFile = str | PathLike[str] | bytes | Image.Image
Message = TypeVar("Message", Inpaint, Outpaint, MaskFreeEdit, Vary)


def inpainting(
    image: ImageFile,
    mask: ImageFile | None = None,
    *,
    feather_px: int | None = None,
    without_composite: bool = False,
) -> Inpaint:
    """Returns what repaints the part of a picture that a mask covers.

    Args:
        image: The picture.
        mask: Of its size, white where new, black where kept; the picture's alpha by default.
        feather_px: Pixels inside the mask over which the new fades in, 0 to 1024.
        without_composite: Returns the decoded picture everywhere.

    Raises:
        InvalidRequest: a number does not fit its field.
        OSError: a file cannot be read.
    """
    message = Inpaint(image=file_bytes(image), without_composite=without_composite)
    if mask is not None:
        message.mask = file_bytes(mask)
    return _filled("inpaint", message, feather_px=feather_px)


def outpainting(
    image: ImageFile, *, left_px: int = 0, top_px: int = 0, right_px: int = 0, bottom_px: int = 0
) -> Outpaint:
    """Returns what extends a picture.

    Args:
        image: The picture.
        left_px: Pixels to add on the left, as on the other sides.
        top_px: On top.
        right_px: On the right.
        bottom_px: At the bottom.

    Raises:
        InvalidRequest: a number does not fit its field.
        OSError: the file cannot be read.
    """
    message = Outpaint(image=file_bytes(image))
    return _filled(
        "outpaint",
        message,
        left_px=left_px,
        top_px=top_px,
        right_px=right_px,
        bottom_px=bottom_px,
    )


def mask_free_editing(
    image: ImageFile,
    *,
    iterations: int | None = None,
    fraction: float | None = None,
    keep: Iterable[int] = (),
    strength: float | None = None,
) -> MaskFreeEdit:
    """Returns what changes a picture towards the prompt without a mask.

    Args:
        image: The picture.
        iterations: 1 to 256; 100 by default.
        fraction: Share of the tokens each of them draws anew; 0.08 by default.
        keep: Iterations after which the picture is wanted besides the last.
        strength: More than 0 to 1, instead of `iterations`: 200 times that.

    Raises:
        InvalidRequest: a number does not fit its field.
        OSError: the file cannot be read.
    """
    message = MaskFreeEdit(image=file_bytes(image))
    _filled("mask_free_edit", message, iterations=iterations, fraction=fraction, strength=strength)
    try:
        message.keep.extend(keep)
    except (TypeError, ValueError) as error:
        raise invalid_request("mask_free_edit.keep", f"expected iterations, got {keep}") from error
    return message


def variation(image: ImageFile, *, strength: float | None = None) -> Vary:
    """Returns what paints a share of a picture anew.

    Args:
        image: The picture.
        strength: The share, more than 0 to 1; 0.5 by default.

    Raises:
        InvalidRequest: the number does not fit its field.
        OSError: the file cannot be read.
    """
    return _filled("vary", Vary(image=file_bytes(image)), strength=strength)


def file_bytes(image: ImageFile) -> bytes:
    """Returns a picture as a file: what it is already, or a PNG of the same mode."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, Image.Image):
        content = io.BytesIO()
        image.save(content, "PNG")
        return content.getvalue()
    return Path(image).read_bytes()


def _filled(edit: str, message: Message, **numbers: Any) -> Message:
    for name, value in numbers.items():
        if value is not None:
            try:
                setattr(message, name, value)
            except (TypeError, ValueError) as error:
                raise invalid_request(
                    f"{edit}.{name}", f"expected a number from 0 up, got {value}"
                ) from error
    return message
