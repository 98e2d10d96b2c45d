"""Picture files of answers: in the format that was asked for, as the orchestrator made them."""

import asyncio
import base64
import io

from muse_client.picture_files import PictureFormat, converted
from PIL import Image


async def encoded(file: bytes, output_format: PictureFormat, quality: int) -> str:
    """Returns a picture's file in base64; a preview, which comes as PNG, in its format.

    Args:
        file: The file as the orchestrator made it.
        output_format: Format of the result.
        quality: Of JPEG and WebP, 0 to 100.
    """
    content = await asyncio.to_thread(converted, file, output_format, quality)
    return base64.b64encode(content).decode()


def size_of(file: bytes) -> str:
    """Returns a picture's size as OpenAI writes it, such as "256x256"."""
    width_px, height_px = sides_of(file)
    return f"{width_px}x{height_px}"


def sides_of(file: bytes) -> tuple[int, int]:
    """Returns a picture's width and height in pixels; reads its header alone."""
    with Image.open(io.BytesIO(file)) as image:
        return image.width, image.height
