"""Pictures as files: PNG, JPEG or WebP by the name's suffix, and sheets of several."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

from muse_client import GeneratedImage
from PIL import Image

QUALITY = 95  # of JPEG and WebP
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
GAP_PX = 4


def check_suffix(file: Path) -> None:
    """Checks that pictures can be written under a name.

    Raises:
        ValueError: its suffix is of no format we write.
    """
    if file.suffix.lower() not in FORMATS:
        raise ValueError(f"out: expected a name that ends in {', '.join(FORMATS)}, got {file}")


def save_picture(picture: GeneratedImage, file: Path) -> None:
    """Writes a picture: a PNG byte for byte as it came, others with the same XMP packet.

    Args:
        picture: What to write.
        file: Its name says the format; its folder is made if missing.

    Raises:
        ValueError: its suffix is of no format we write.
    """
    check_suffix(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    if FORMATS[file.suffix.lower()] == "PNG":
        file.write_bytes(picture.png)
        return
    file.write_bytes(_encoded(picture.image, file, picture.image.info.get("xmp", b"")))


def save_sheet(pictures: Sequence[GeneratedImage], file: Path) -> None:
    """Writes pictures of one size side by side, about as many rows as columns.

    Args:
        pictures: At least one, in order.
        file: Its name says the format.
    """
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    width, height = (side + GAP_PX for side in pictures[0].image.size)
    sheet = Image.new("RGB", (columns * width + GAP_PX, rows * height + GAP_PX), "white")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        sheet.paste(picture.image, (GAP_PX + column * width, GAP_PX + row * height))
    file.write_bytes(_encoded(sheet, file, b""))


def _encoded(image: Image.Image, file: Path, xmp: bytes) -> bytes:
    content = io.BytesIO()
    extra = {"xmp": xmp} if xmp else {}
    image.save(content, FORMATS[file.suffix.lower()], quality=QUALITY, **extra)
    return content.getvalue()
