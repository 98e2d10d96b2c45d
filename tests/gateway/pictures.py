"""Pictures that the tests of the gateway send and get."""

import base64
import io

import numpy as np
from PIL import Image

SIDE_PX = 32


def file_of(pixels: np.ndarray) -> bytes:
    """Returns a PNG file."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def noise() -> np.ndarray:
    """Returns a picture of `SIDE_PX`, the same at each call."""
    return np.random.default_rng(1).integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)


def pixels_of(content: str | None) -> np.ndarray:
    """Returns the pixels of a file in base64."""
    assert content is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
