"""Files of pictures: PNG of previews, and PNG, JPEG or WebP of finished pictures."""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import UInt8
from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest, PictureFormat
from PIL import Image

from services.orchestrator.metadata import png_metadata
from services.pictures.xmp import file_with_xmp, xmp_packet
from services.runtime.wire.errors import invalid_field

FORMATS = {  # by Pillow's names
    PictureFormat.PICTURE_FORMAT_PNG: "PNG",
    PictureFormat.PICTURE_FORMAT_JPEG: "JPEG",
    PictureFormat.PICTURE_FORMAT_WEBP: "WEBP",
}
QUALITY = 95  # of JPEG and WebP by default
MAX_QUALITY = 100
MAX_WEBP_SIDE_PX = 2**14 - 1  # libwebp's
LARGE_PIXELS = 2**20  # above which a PNG is compressed with less effort, to save seconds
# Writes files, so that they wait for each other only.
FILE_THREADS = ThreadPoolExecutor(os.cpu_count(), "picture_files")


def set_format(request: GenerateRequest) -> None:
    """Sets the format and the quality that a request leaves unset, and checks the others.

    Raises:
        RequestError: INVALID_ARGUMENT: there is no such format or quality.
    """
    if not request.picture_format:
        request.picture_format = PictureFormat.PICTURE_FORMAT_PNG
    if request.picture_format not in FORMATS:
        raise invalid_field(
            "picture_format", expected=" or ".join(FORMATS.values()), got=request.picture_format
        )
    if not request.HasField("quality"):
        request.quality = QUALITY
    if request.quality > MAX_QUALITY:
        raise invalid_field("quality", expected=f"0 to {MAX_QUALITY}", got=request.quality)


def check_sides(request: GenerateRequest, height_px: int, width_px: int) -> None:
    """Checks that the format of a request can hold a picture.

    Raises:
        RequestError: INVALID_ARGUMENT: it is WebP, and a side is too long for that.
    """
    is_webp = request.picture_format == PictureFormat.PICTURE_FORMAT_WEBP
    if is_webp and max(height_px, width_px) > MAX_WEBP_SIDE_PX:
        raise invalid_field(
            "picture_format",
            expected=f"PNG or JPEG with a side of more than {MAX_WEBP_SIDE_PX} pixels",
            got=f"WEBP and {width_px} x {height_px}",
        )


def picture_file(
    pixels: UInt8[np.ndarray, "h w 3"], fields: dict[str, str], request: GenerateRequest
) -> bytes:
    """Returns the file of a finished picture in the format of a checked request.

    Args:
        pixels: The picture.
        fields: What the file says of its origin: fields of `picture_fields`.
        request: The checked request.
    """
    file_format = FORMATS[request.picture_format]
    if file_format == "PNG":
        level = 6 if pixels[..., 0].size <= LARGE_PIXELS else 1
        return png_file(pixels, pnginfo=png_metadata(fields), compress_level=level)
    packet = xmp_packet(fields)
    return file_with_xmp(Image.fromarray(pixels), file_format, packet, quality=request.quality)


def png_file(pixels: UInt8[np.ndarray, "h w 3"], **options: Any) -> bytes:
    """Returns the PNG file of a picture; options as of Pillow's `save`."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()
