"""Picture files of answers: PNG as it came, or JPEG and WebP with the same metadata."""

import asyncio
import base64
import io
from typing import Literal

from PIL import Image

OutputFormat = Literal["png", "jpeg", "webp"]
_XMP = "XML:com.adobe.xmp"  # where a PNG has its XMP packet


async def encoded(png: bytes, output_format: OutputFormat, quality: int) -> str:
    """Returns a picture's file in base64.

    Args:
        png: The picture as the orchestrator made it.
        output_format: Format of the file.
        quality: Of JPEG and WebP, 0 to 100.
    """
    if output_format == "png":
        return base64.b64encode(png).decode()
    content = await asyncio.to_thread(_converted, png, output_format, quality)
    return base64.b64encode(content).decode()


def size_of(png: bytes) -> str:
    """Returns a picture's size as OpenAI writes it, such as "256x256"."""
    width_px, height_px = sides_of(png)
    return f"{width_px}x{height_px}"


def sides_of(png: bytes) -> tuple[int, int]:
    """Returns a picture's width and height in pixels; reads its header alone."""
    with Image.open(io.BytesIO(png)) as image:
        return image.width, image.height


def _converted(png: bytes, output_format: str, quality: int) -> bytes:
    content = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.load()  # chunks after the pixels, too
        xmp = image.info.get(_XMP, "").encode()
        image.convert("RGB").save(content, output_format.upper(), quality=quality, xmp=xmp)
    return content.getvalue()
