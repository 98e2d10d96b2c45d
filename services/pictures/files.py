"""The reader of picture files, for edits and for training alike: PNG, JPEG and WebP.

The declared size and the number of the file's parts are checked before anything is decoded. The
rules:

- Orientation: pictures are turned upright by EXIF.
- Grey, palette, CMYK: converted to RGB by Pillow's plain formulas; colour profiles are not applied.
- 16 bits a channel: the upper 8 bits.
- Alpha, or a transparent colour: composited over a backdrop.
- Several pictures in one file: the first of a JPEG (MPO, as phones write it); an animation (PNG or
  WebP) is refused, since it does not say which of its frames is meant.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from services.pictures.errors import PictureError
from services.pictures.structure import check_structure

FORMATS = ("PNG", "JPEG", "WEBP")
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
class PictureLimits:
    """Sizes that are read.

    Attributes:
        min_side_px: Of the shorter side.
        max_side_px: Of the longer side.
        max_pixels: Of the whole picture.
    """

    min_side_px: int
    max_side_px: int
    max_pixels: int


@dataclass(frozen=True, kw_only=True)
class SourcePicture:
    """A decoded picture, upright.

    Attributes:
        rgb: Colours, composited over the backdrop where the picture is transparent.
        alpha: Opacity; None for a picture without transparency.
    """

    rgb: UInt8[np.ndarray, "h w 3"]
    alpha: UInt8[np.ndarray, "h w"] | None


class ReadPicture(Protocol):
    """The signature of `read_picture`, which may run elsewhere."""

    def __call__(
        self, content: bytes, limits: PictureLimits, *, backdrop: str = "white"
    ) -> SourcePicture:
        """Decodes a PNG, JPEG or WebP file; see `read_picture`."""


def declared_size(content: bytes, limits: PictureLimits) -> tuple[int, int]:
    """Returns height and width from a file's header, without decoding the picture.

    The EXIF orientation is not applied, so the two may be swapped.

    Raises:
        PictureError: as `read_picture`, as far as the header shows.
    """
    if (webp := _webp_size(content)) is not None:  # Pillow allocates the pixels as it opens a WebP
        _check_size(*webp, limits)
        return webp[1], webp[0]
    with _opened(content, limits) as image:
        return image.height, image.width


def read_picture(
    content: bytes, limits: PictureLimits, *, backdrop: str = "white"
) -> SourcePicture:
    """Decodes a PNG, JPEG or WebP file.

    Args:
        content: The whole file.
        limits: Sizes that are read.
        backdrop: Colour behind transparent pixels.

    Raises:
        PictureError: the file is of another format, broken or an animation, or the picture's size
            is outside the limits.
    """
    with _opened(content, limits) as image:
        upright = _upright(_loaded(image))
    if not upright.has_transparency_data:
        return SourcePicture(rgb=np.asarray(upright.convert("RGB")), alpha=None)
    layered = upright.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", layered.size, backdrop), layered)
    return SourcePicture(
        rgb=np.asarray(flat.convert("RGB")), alpha=np.asarray(layered.getchannel("A"))
    )


@contextmanager
def _opened(content: bytes, limits: PictureLimits) -> Iterator[Image.Image]:
    """Opens a file and checks its header; decodes nothing."""
    expected = "a PNG, JPEG or WebP file"
    if not content:
        raise PictureError(expected, "nothing")
    check_structure(content)
    if (webp := _webp_size(content)) is not None:  # as in `declared_size`
        _check_size(*webp, limits)
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        start = content[:8].hex(" ")
        raise PictureError(expected, f"{len(content)} bytes that begin with {start}") from error
    except Image.DecompressionBombError as error:
        raise _too_large("more pixels than that", limits) from error
    except _BROKEN as error:
        raise _broken(error) from error
    with image:
        _check_size(image.width, image.height, limits)
        yield image


def _check_size(width: int, height: int, limits: PictureLimits) -> None:
    got = f"{width} x {height}"
    if max(width, height) > limits.max_side_px or width * height > limits.max_pixels:
        raise _too_large(got, limits)
    if min(width, height) < limits.min_side_px:
        raise PictureError(f"sides of at least {limits.min_side_px} pixels", got)


def _too_large(got: str, limits: PictureLimits) -> PictureError:
    expected = f"at most {limits.max_pixels} pixels and sides of at most {limits.max_side_px}"
    return PictureError(expected, got, "make it smaller")


def _broken(error: Exception) -> PictureError:
    return PictureError(
        "a whole PNG, JPEG or WebP file", f"a broken one: {error}", "it may have been truncated"
    )


def _loaded(image: Image.Image) -> Image.Image:
    """Decodes the picture of an opened file."""
    try:
        frames = 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
        if frames > 1:
            raise PictureError("a still picture", f"an animation of {frames} pictures")
        image.load()
    except _BROKEN as error:
        raise _broken(error) from error
    return image


def _upright(image: Image.Image) -> Image.Image:
    """Returns the picture turned by its EXIF orientation; unreadable EXIF is ignored."""
    with suppress(*_BROKEN):
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow's convert would clip at 255
        grey = np.clip(np.asarray(image).astype(np.int32) >> 8, 0, 255)
        image = Image.fromarray(grey.astype(np.uint8))
    return image


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
