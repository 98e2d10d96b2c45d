"""Image files: PNG, JPEG or WebP by suffix, and contact sheets."""

import io
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from muse_client import GeneratedImage
from PIL import Image

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


def check_folder(option: str, folder: Path | None) -> None:
    """Checks that files can be written into the folder of an option, if it gives one.

    A folder that is not there yet is not created: the nearest one above it counts.

    Raises:
        ValueError: they cannot, and why.
    """
    if folder is None:
        return
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    try:
        with TemporaryFile(dir=there) as probe:
            probe.write(b"0")
    except OSError as error:
        raise ValueError(
            f"{option}: nothing can be written to {there}: {error.strerror}"
        ) from error


def check_file(option: str, file: Path | None) -> None:
    """Checks that the file of an option, if it gives one, can be written.

    Raises:
        ValueError: it cannot, and why.
    """
    if file is None:
        return
    if file.is_dir():
        raise ValueError(f"{option}: expected a file, got the folder {file}")
    check_folder(option, file.parent)


def write_file(file: Path, content: bytes) -> None:
    """Writes a file whole or not at all; its folder is created.

    Raises:
        RuntimeError: the file cannot be written, such as on a full disk, and stays as it was.
    """
    target = file.resolve()  # a link stays one
    part = target.with_stem(f"{target.stem}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(target)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise RuntimeError(f"cannot write {file}: {error.strerror or error}") from error


def save_image(image: Image.Image, file: Path, **options: Any) -> None:
    """Writes an image in the format of the file's suffix; options as of Pillow's `save`.

    Encoded in memory: Pillow itself does not notice that a full disk took a part of a JPEG only.

    Raises:
        RuntimeError: the file cannot be written.
    """
    content = io.BytesIO()
    image.save(content, Image.registered_extensions()[file.suffix.lower()], **options)
    write_file(file, content.getvalue())


def save_picture(picture: GeneratedImage, file: Path) -> None:
    """Writes an image: the received PNG unchanged, or another format with the same XMP packet.

    The suffix of the file gives the format. Its folder is created.

    Raises:
        ValueError: the suffix is of no supported format.
        RuntimeError: the file cannot be written.
    """
    check_suffix("out", file)
    if file.suffix.lower() == ".png":
        write_file(file, picture.png)
        return
    xmp = picture.image.info.get("xmp", b"")
    save_image(picture.image, file, quality=QUALITY, **({"xmp": xmp} if xmp else {}))


def save_sheet(pictures: Sequence[GeneratedImage], file: Path) -> None:
    """Writes a contact sheet of images of one size, with about as many rows as columns.

    Raises:
        RuntimeError: the file cannot be written.
    """
    columns = math.ceil(math.sqrt(len(pictures)))
    sheet = contact_sheet([picture.image for picture in pictures], columns=columns)
    save_image(sheet, file, quality=QUALITY)
