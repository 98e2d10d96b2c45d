"""Image files: PNG, JPEG or WebP by suffix, and contact sheets."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from muse_client import GeneratedImage

from services.pictures.sheets import contact_sheet

QUALITY = 95  # of JPEG and WebP
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def check_suffix(option: str, file: Path | None, suffixes: Iterable[str] = SUFFIXES) -> None:
    """Checks that the suffix of an option's file, if it gives one, is a supported one.

    Raises:
        ValueError: the suffix is not supported.
    """
    if file is not None and file.suffix.lower() not in suffixes:
        raise ValueError(
            f"{option}: expected a name that ends in {', '.join(suffixes)}, got {file}"
        )


def save_picture(picture: GeneratedImage, file: Path) -> None:
    """Writes an image: the received PNG unchanged, or another format with the same XMP packet.

    The suffix of the file gives the format. Its folder is created.

    Raises:
        ValueError: the suffix is of no supported format.
    """
    check_suffix("out", file)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix.lower() == ".png":
        file.write_bytes(picture.png)
        return
    xmp = picture.image.info.get("xmp", b"")
    picture.image.save(file, quality=QUALITY, **({"xmp": xmp} if xmp else {}))


def save_sheet(pictures: Sequence[GeneratedImage], file: Path) -> None:
    """Writes a contact sheet of images of one size, with about as many rows as columns."""
    columns = math.ceil(math.sqrt(len(pictures)))
    sheet = contact_sheet([picture.image for picture in pictures], columns=columns)
    sheet.save(file, quality=QUALITY)
