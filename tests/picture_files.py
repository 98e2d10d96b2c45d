"""Pictures as files: pixels to a file, a file to pixels, and noise to make one of."""

import io
from typing import Any

import numpy as np
from PIL import Image


def file_of(pixels: np.ndarray, kind: str = "PNG", **extra: Any) -> bytes:
    """Returns pixels as a file: grey, RGB or RGBA."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **extra)
    return content.getvalue()


def pixels_of(png: bytes) -> np.ndarray:
    """Returns the pixels of a file."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def noise(height: int = 32, width: int = 32) -> np.ndarray:
    """Returns a picture of noise, darker than what is painted."""
    return np.random.default_rng(0).integers(0, 150, (height, width, 3)).astype(np.uint8)


def packet_of(content: bytes) -> str:
    """Returns the XMP packet of a file, also of a GIF, whose packet Pillow does not read."""
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        if image.format != "GIF":
            return image.info["xmp"].decode()
    begin = content.index(b"\x21\xff\x0bXMP DataXMP") + 14
    return content[begin : content.index(b"\x01\xff\xfe\xfd", begin)].decode()
