"""Picture files of callers: read, or refused within the limits by one sentence.

The first byte chooses the backdrop; the rest is the file.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from services.pictures.errors import PictureError
from services.pictures.files import PictureLimits, declared_size, read_picture
from tests.fuzz.sentences import check_sentence
from tests.pictures.odd_files import jpeg_of, jpeg_of_scans, png_of, webp_of

MODULES = ("services.pictures",)
MAX_BYTES = 4096
LIMITS = PictureLimits(min_side_px=4, max_side_px=512, max_pixels=2**16)
BACKDROPS = ("white", "black")


@contextmanager
def opened() -> Iterator[Callable[[bytes], None]]:
    """Yields the check of one case."""
    yield check


def check(content: bytes) -> None:
    """Reads a file whole, and by its header alone."""
    backdrop, file = BACKDROPS[content[:1] > b"\x7f"], content[1:]
    size = read = None
    try:
        size = declared_size(file, LIMITS)
    except PictureError as error:
        check_sentence(str(error), begins="expected ")
    try:
        read = read_picture(file, LIMITS, backdrop=backdrop)
    except PictureError as error:
        check_sentence(str(error), begins="expected ")
    if read is not None:
        height, width = read.rgb.shape[:2]
        assert size in ((height, width), (width, height)), f"{size} declared, {height} x {width}"
        assert read.rgb.shape == (height, width, 3)
        assert read.rgb.dtype == np.uint8
        assert read.alpha is None or read.alpha.shape == (height, width)
        assert LIMITS.min_side_px <= min(height, width)
        assert max(height, width) <= LIMITS.max_side_px
        assert height * width <= LIMITS.max_pixels


def seeds() -> Iterator[tuple[str, bytes]]:
    """Yields small files of every kind."""
    drawn = np.random.default_rng(0).integers(0, 255, (8, 9, 4), dtype=np.uint8)
    picture = Image.fromarray(drawn)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield f"{mode.replace(';', '')}.png", _file(_as(picture, mode), "PNG")
    yield "transparent_palette.png", _file(_as(picture, "P"), "PNG", transparency=3)
    yield "animated.png", _file(picture, "PNG", save_all=True, append_images=[picture])
    for mode in ("L", "RGB", "CMYK"):
        yield f"{mode}.jpeg", _file(_as(picture, mode), "JPEG")
    rgb = picture.convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    yield "turned.jpeg", _file(rgb, "JPEG", exif=exif)
    yield "progressive.jpeg", _file(rgb, "JPEG", progressive=True)
    yield "lossy.webp", _file(rgb, "WEBP")
    yield "lossless.webp", _file(rgb, "WEBP", lossless=True)
    yield "alpha.webp", _file(picture, "WEBP", exif=exif)
    yield "animated.webp", _file(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(90)])
    yield "other.gif", _file(rgb, "GIF")
    for name, content in (
        ("chunks.png", png_of(3, 5)),
        ("chunks.webp", webp_of(3)),
        ("segments.jpeg", jpeg_of(3, 20)),
        ("scans.jpeg", jpeg_of_scans(3)),
    ):
        if len(content) < MAX_BYTES:
            yield name, b"\0" + content


def _as(picture: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    if mode == "CMYK":
        return picture.convert("RGB").convert("CMYK")
    return picture.convert(mode)


def _file(picture: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return b"\0" + content.getvalue()
