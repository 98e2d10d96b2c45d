"""Decoding of the PNG, JPEG and WebP files that callers send.

The declared size is checked before anything is decoded. The rules:

- Orientation: pictures are turned upright by EXIF.
- Grey, palette, CMYK: converted to RGB by Pillow's plain formulas; colour profiles are not applied.
- 16 bits a channel: the upper 8 bits.
- Alpha, or a transparent colour: composited over white; over black in a mask.
- Several pictures in one file: the first of a JPEG (MPO, as phones write it); an animation (PNG or
  WebP) is refused, since it does not say which of its frames is meant.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from services.orchestrator.edits.limits import MAX_PIXELS, MAX_SIDE_PX
from services.runtime.wire.errors import RequestError, invalid_field

FORMATS = ("PNG", "JPEG", "WEBP")
MIN_SIDE_PX = 16
HALF = 128  # masks are white, and alpha is opaque, from this value on
# Errors that Pillow raises on broken files.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, kw_only=True)
class SourcePicture:
    """A decoded picture, upright.

    Attributes:
        rgb: Colours, composited over white where the picture is transparent.
        alpha: Opacity; None for a picture without transparency.
    """

    rgb: UInt8[np.ndarray, "h w 3"]
    alpha: UInt8[np.ndarray, "h w"] | None


def declared_size(content: bytes, field: str) -> tuple[int, int]:
    """Returns height and width from a file's header, without decoding the picture.

    The EXIF orientation is not applied, so the two may be swapped.

    Raises:
        RequestError: INVALID_ARGUMENT: as `read_picture`, as far as the header shows.
    """
    with _opened(content, field) as image:
        return image.height, image.width


def read_picture(content: bytes, field: str) -> SourcePicture:
    """Decodes a PNG, JPEG or WebP file; `field` is its path in the request.

    Raises:
        RequestError: INVALID_ARGUMENT: the file is of another format, broken or an animation, or
            the picture's size is outside the limits.
    """
    with _opened(content, field) as image:
        upright = _upright(_loaded(image, field))
    if not upright.has_transparency_data:
        return SourcePicture(rgb=_rgb(upright), alpha=None)
    layered = upright.convert("RGBA")
    alpha = np.asarray(layered.getchannel("A"))
    return SourcePicture(rgb=_over(layered, "white"), alpha=alpha)


def read_mask(content: bytes, field: str, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Decodes a mask of a picture's height and width: True from the grey value HALF on.

    Raises:
        RequestError: INVALID_ARGUMENT: as `read_picture`, or the size differs.
    """
    with _opened(content, field) as image:
        mask = _upright(_loaded(image, field))
    height, width = size
    if mask.size != (width, height):
        raise invalid_field(
            field,
            expected=f"the picture's {width} x {height} pixels",
            got=f"{mask.width} x {mask.height}",
        )
    if mask.has_transparency_data:
        mask = Image.fromarray(_over(mask.convert("RGBA"), "black"))
    else:
        mask = Image.fromarray(_rgb(mask))
    return np.asarray(mask.convert("L")) >= HALF


@contextmanager
def _opened(content: bytes, field: str) -> Iterator[Image.Image]:
    """Opens a file and checks its header; decodes nothing."""
    expected = "a PNG, JPEG or WebP file"
    if not content:
        raise invalid_field(field, expected=expected, got="nothing")
    if (webp := _webp_size(content)) is not None:  # Pillow allocates the pixels as it opens a WebP
        _check_size(*webp, field)
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        start = content[:8].hex(" ")
        got = f"{len(content)} bytes that begin with {start}"
        raise invalid_field(field, expected=expected, got=got) from error
    except Image.DecompressionBombError as error:
        raise _too_large(field, "more pixels than that") from error
    except _BROKEN as error:
        raise _broken(field, error) from error
    with image:
        _check_size(image.width, image.height, field)
        yield image


def _check_size(width: int, height: int, field: str) -> None:
    got = f"{width} x {height}"
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_PIXELS:
        raise _too_large(field, got)
    if min(width, height) < MIN_SIDE_PX:
        expected = f"sides of at least {MIN_SIDE_PX} pixels"
        raise invalid_field(field, expected=expected, got=got)


def _too_large(field: str, got: str) -> RequestError:
    expected = f"at most {MAX_PIXELS} pixels and sides of at most {MAX_SIDE_PX}"
    return invalid_field(field, expected=expected, got=got, advice="make it smaller")


def _broken(field: str, error: Exception) -> RequestError:
    return invalid_field(
        field,
        expected="a whole PNG, JPEG or WebP file",
        got=f"a broken one: {error}",
        advice="it may have been truncated",
    )


def _loaded(image: Image.Image, field: str) -> Image.Image:
    """Decodes the picture of an opened file."""
    try:
        frames = 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
        if frames > 1:
            raise invalid_field(
                field, expected="a still picture", got=f"an animation of {frames} pictures"
            )
        image.load()
    except _BROKEN as error:
        raise _broken(field, error) from error
    return image


def _upright(image: Image.Image) -> Image.Image:
    """Returns the picture turned by its EXIF orientation; unreadable EXIF is ignored."""
    with suppress(*_BROKEN):
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow's convert would clip at 255
        grey = np.clip(np.asarray(image).astype(np.int32) >> 8, 0, 255)
        image = Image.fromarray(grey.astype(np.uint8))
    return image


def _rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    return np.asarray(image.convert("RGB"))


def _over(layered: Image.Image, backdrop: str) -> UInt8[np.ndarray, "h w 3"]:
    behind = Image.new("RGBA", layered.size, backdrop)
    return _rgb(Image.alpha_composite(behind, layered))


def _webp_size(content: bytes) -> tuple[int, int] | None:
    """Returns width and height from the header of a WebP file; None for any other file.

    Source: RFC 9649, sections 2.5 to 2.7.
    """
    head, kind = content[:30], content[12:16]
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP" or len(head) < 30:
        return None
    if kind == b"VP8X":
        sides = (head[24:27], head[27:30])
        width, height = (1 + int.from_bytes(side, "little") for side in sides)
    elif kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack("<2H", head[26:30]))
    else:
        return None
    return width, height
