"""Image files: PNG, JPEG or WebP by suffix, and contact sheets."""

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from muse_client import GeneratedImage
from muse_client.picture_files import FORMATS, QUALITY, converted
from PIL import Image

from services.pictures.sheets import contact_sheet
from services.pictures.xmp import fields_of, file_with_xmp, joint_packet


def check_suffix(option: str, file: Path | None, suffixes: Iterable[str] = FORMATS) -> None:
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


def save_image(
    image: Image.Image, shown: Iterable[Image.Image], file: Path, **options: Any
) -> None:
    """Writes an image that shows received ones, with an XMP packet of where those come from.

    Encoded in memory: Pillow itself does not notice that a full disk took a part of a JPEG only.

    Args:
        image: The image, or the first frame of an animation.
        shown: Received images that it shows.
        file: File whose suffix gives the format.
        options: Options as of Pillow's `save`.

    Raises:
        RuntimeError: the file cannot be written.
    """
    file_format = Image.registered_extensions()[file.suffix.lower()]
    packet = joint_packet([fields_of(each) for each in shown])
    write_file(file, file_with_xmp(image, file_format, packet, **options))


def save_picture(picture: GeneratedImage, file: Path) -> None:
    """Writes an image: the received file unchanged, or another format with the same XMP packet.

    The suffix of the file gives the format. Its folder is created, and the file is there whole or
    not at all.

    Raises:
        ValueError: the suffix is of no supported format.
        RuntimeError: the file cannot be written.
    """
    check_suffix("out", file)
    write_file(file, converted(picture.file, FORMATS[file.suffix.lower()]))


def save_sheet(pictures: Sequence[GeneratedImage], file: Path) -> None:
    """Writes a contact sheet of images of one size, with about as many rows as columns.

    Raises:
        RuntimeError: the file cannot be written.
    """
    columns = math.ceil(math.sqrt(len(pictures)))
    images = [picture.image for picture in pictures]
    save_image(contact_sheet(images, columns=columns), images, file, quality=QUALITY)
