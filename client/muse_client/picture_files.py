"""The bytes of a picture's file: from whatever a caller has, and in the format a caller wants."""

import io
from os import PathLike
from pathlib import Path
from typing import IO, Any, Literal, cast

from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from muse_client.errors import invalid_request

ImageFile = str | PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image
PictureFormat = Literal["png", "jpeg", "webp"]
FORMATS: dict[str, PictureFormat] = {  # by suffix of a file's name
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
}
QUALITY = 95  # of JPEG and WebP
MAX_WEBP_SIDE_PX = 2**14 - 1  # libwebp's
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
# Modes that PNG lacks, and the one that has the same colours and transparency.
_CONVERTED = {
    "La": "LA",
    "PA": "RGBA",
    "RGBa": "RGBA",
    **dict.fromkeys(("RGBX", "CMYK", "YCbCr", "LAB", "HSV"), "RGB"),
}
_GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")


def file_bytes(image: ImageFile, field: str = "image") -> bytes:
    """Returns the bytes of a picture's file.

    A PIL image becomes a PNG with the colours that its own file has for the servers: upright by its
    EXIF orientation; grey of 16 bits (mode I too) keeps them; numbers (mode F) are grey from 0 to
    255.

    Args:
        image: Name of a file, its bytes, a file that is open for reading bytes, or a PIL image.
        field: Name of the argument, for errors.

    Raises:
        InvalidRequest: it is none of these, or a PIL image whose mode or values have no colours.
        OSError: the file cannot be read.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    if isinstance(image, Image.Image):
        return _png(image, field)
    if isinstance(image, str | PathLike):
        return Path(image).read_bytes()
    content = image.read() if hasattr(image, "read") else None
    if not isinstance(content, bytes):
        raise invalid_request(
            field,
            "expected the name of a file, its bytes, a file open for reading bytes, or a PIL "
            f"image, got {type(image).__name__}",
        )
    return content


def converted(file: bytes, picture_format: PictureFormat, quality: int = QUALITY) -> bytes:
    """Returns a received file unchanged, or in another format with the same XMP packet.

    A C2PA manifest covers the bytes of its file, so another format cannot keep it.

    Args:
        file: The file as the server made it.
        picture_format: Format of the result.
        quality: Of JPEG and WebP, 0 to 100, where the file has another format.

    Raises:
        InvalidRequest: WebP cannot hold a side as long as the picture's.
    """
    with Image.open(io.BytesIO(file)) as image:
        if image.format == picture_format.upper():
            return file
        image.load()  # chunks after the pixels, too
        if picture_format == "webp" and max(image.size) > MAX_WEBP_SIDE_PX:
            expected = f"png or jpeg with a side of more than {MAX_WEBP_SIDE_PX} pixels"
            sides = f"{image.width} x {image.height}"
            raise invalid_request("picture_format", f"expected {expected}, got webp and {sides}")
        xmp = image.info.get("xmp", b"")
        options: dict[str, Any] = {"quality": quality, "xmp": xmp}
        if picture_format == "png":
            options = {"pnginfo": PngInfo()}
            options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
        content = io.BytesIO()
        image.convert("RGB").save(content, picture_format.upper(), **options)
    return content.getvalue()


def _png(image: Image.Image, field: str) -> bytes:
    if min(image.size) == 0:
        raise invalid_request(field, f"expected pixels, got {image.width} x {image.height}")
    upright, content = ImageOps.exif_transpose(image), io.BytesIO()
    _with_png_mode(upright, field).save(content, "PNG", icc_profile=None)
    return content.getvalue()


def _with_png_mode(image: Image.Image, field: str) -> Image.Image:
    mode = image.mode
    if mode in _PNG_MODES:
        return image
    if mode in _CONVERTED:
        return image.convert(_CONVERTED[mode])
    if mode in _GREY_16:
        return _checked(image.convert("I"), 2**16 - 1, field).convert("I;16")
    if mode == "I":
        return _checked(image, 2**16 - 1, field).convert("I;16")
    if mode == "F":
        return _checked(image, 2**8 - 1, field).convert("L")
    raise invalid_request(
        field,
        f"expected an image of a mode such as RGB, RGBA or L, got {mode}: convert it before",
    )


def _checked(image: Image.Image, largest: int, field: str) -> Image.Image:
    least, most = cast("tuple[float, float]", image.getextrema())
    if not (least >= 0 and most <= largest):
        raise invalid_request(
            field,
            f"expected values of 0 to {largest} in mode {image.mode}, got {least} to {most}: "
            "scale them before",
        )
    return image
