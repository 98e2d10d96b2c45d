"""Pictures that callers send, as pixels: PNG, JPEG or WebP, whatever is wrong with them.

The declared size is checked before anything is decoded. What is read:

- Orientation: as EXIF says, so that rows are rows to the eye.
- Grey, palette, CMYK: converted to RGB by Pillow's plain formulas; colour profiles are not applied.
- 16 bits a channel: the upper 8.
- Alpha, or a transparent colour: laid over white; over black in a mask.
- Several pictures in one file: the first of a JPEG (MPO, as phones write it); an animation (PNG or
  WebP) is refused, since which of its pictures is meant cannot be known.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, UnidentifiedImageError

from services.orchestrator.edits.limits import LONGEST_SIDE_PX, MOST_PIXELS
from services.runtime.wire.errors import RequestError, invalid_field

FORMATS = ("PNG", "JPEG", "WEBP")
SHORTEST_SIDE_PX = 16
HALF = 128  # from which a mask is white, and alpha is there
ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow raises on files that are broken, of all kinds.
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
    """A picture as it came, upright.

    Attributes:
        rgb: Its colours, laid over white where it is transparent.
        alpha: How opaque it is; None if it says nothing of that.
    """

    rgb: UInt8[np.ndarray, "h w 3"]
    alpha: UInt8[np.ndarray, "h w"] | None

    @property
    def height(self) -> int:
        """Rows."""
        return self.rgb.shape[0]

    @property
    def width(self) -> int:
        """Columns."""
        return self.rgb.shape[1]


def declared_size(content: bytes, field: str) -> tuple[int, int]:
    """Returns the two sides that a file says its picture has, without decoding any of it.

    Which of them is the height only its orientation tells.

    Args:
        content: The file.
        field: Its name in the request, for the refusal.

    Raises:
        RequestError: INVALID_ARGUMENT: as `read_picture`, as far as its head shows.
    """
    with _opened(content, field) as image:
        return image.height, image.width


def read_picture(content: bytes, field: str) -> SourcePicture:
    """Decodes a picture.

    Args:
        content: A PNG, JPEG or WebP file.
        field: Its name in the request, for the refusal.

    Raises:
        RequestError: INVALID_ARGUMENT: it is no such file, truncated or broken, an animation, or
            its size is beyond the limits.
    """
    with _opened(content, field) as image:
        upright = _upright(_loaded(image, field))
    if not upright.has_transparency_data:
        return SourcePicture(rgb=_rgb(upright), alpha=None)
    layered = upright.convert("RGBA")
    alpha = np.asarray(layered.getchannel("A"))
    return SourcePicture(rgb=_over(layered, "white"), alpha=alpha)


def read_mask(content: bytes, field: str, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Decodes a mask: True where it is white, or at least half so.

    Args:
        content: A PNG, JPEG or WebP file.
        field: Its name in the request, for the refusal.
        size: Height and width of the picture it belongs to, both upright.

    Raises:
        RequestError: INVALID_ARGUMENT: as `read_picture`, or it is of another size.
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
    """Opens a file, its head checked and nothing decoded."""
    expected = "a PNG, JPEG or WebP file"
    if not content:
        raise invalid_field(field, expected=expected, got="nothing")
    if (webp := _webp_size(content)) is not None:  # Pillow makes room for the pixels as it opens it
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
    said = f"{width} x {height}"
    if max(width, height) > LONGEST_SIDE_PX or width * height > MOST_PIXELS:
        raise _too_large(field, said)
    if min(width, height) < SHORTEST_SIDE_PX:
        expected = f"sides of at least {SHORTEST_SIDE_PX} pixels"
        raise invalid_field(field, expected=expected, got=said)


def _too_large(field: str, got: str) -> RequestError:
    expected = f"at most {MOST_PIXELS} pixels and sides of at most {LONGEST_SIDE_PX}"
    return invalid_field(field, expected=expected, got=got, advice="make it smaller")


def _broken(field: str, error: Exception) -> RequestError:
    return invalid_field(
        field,
        expected="a whole PNG, JPEG or WebP file",
        got=f"a broken one: {error}",
        advice="it may have been truncated",
    )


def _loaded(image: Image.Image, field: str) -> Image.Image:
    """Decodes an opened file's one picture."""
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
    """Returns the picture turned as its EXIF says; EXIF that cannot be read says nothing."""
    try:
        turn = _UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    except _BROKEN:
        turn = None
    if image.mode.startswith("I"):  # 16 bits of grey: Pillow would cut them off at 255
        grey = np.clip(np.asarray(image).astype(np.int32) >> 8, 0, 255)
        image = Image.fromarray(grey.astype(np.uint8))
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    return np.asarray(image.convert("RGB"))


def _over(layered: Image.Image, backdrop: str) -> UInt8[np.ndarray, "h w 3"]:
    behind = Image.new("RGBA", layered.size, backdrop)
    return _rgb(Image.alpha_composite(behind, layered))


def _webp_size(content: bytes) -> tuple[int, int] | None:
    """Returns width and height of a WebP file as its head says; None if it is no such file.

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
