"""Picture files of answers: PNG as it came, or JPEG and WebP with the same metadata."""

import asyncio
import base64
import io

from muse_client.picture_files import PictureFormat, converted
from PIL import Image


async def encoded(png: bytes, output_format: PictureFormat, quality: int) -> str:
    """Returns a picture's file in base64.

    Args:
        png: The picture as the orchestrator made it.
        output_format: Format of the file.
        quality: Of JPEG and WebP, 0 to 100.
    """
    content = await asyncio.to_thread(converted, png, output_format, quality)
    return base64.b64encode(content).decode()


def size_of(png: bytes) -> str:
    """Returns a picture's size as OpenAI writes it, such as "256x256"."""
    width_px, height_px = sides_of(png)
    return f"{width_px}x{height_px}"


def sides_of(png: bytes) -> tuple[int, int]:
    """Returns a picture's width and height in pixels; reads its header alone."""
    with Image.open(io.BytesIO(png)) as image:
        return image.width, image.height
