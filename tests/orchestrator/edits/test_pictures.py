"""Pictures from outside: each sort of file is converted as documented, or refused by its field."""

import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from services.orchestrator.edits.limits import MAX_PIXELS
from services.orchestrator.edits.pictures import (
    declared_size,
    read_mask,
    read_picture,
)
from services.runtime.wire.errors import RequestError

WIDTH, HEIGHT = 24, 16
ORIENTATION = 0x0112


def halves(mode: str = "RGB", left: Any = (200, 0, 0), right: Any = (0, 0, 200)) -> Image.Image:
    """A picture of two halves."""
    image = Image.new(mode, (WIDTH, HEIGHT), right)
    image.paste(left, (0, 0, WIDTH // 2, HEIGHT))
    return image


def saved(image: Image.Image, kind: str = "PNG", **extra: Any) -> bytes:
    """A picture as a file."""
    content = io.BytesIO()
    image.save(content, kind, **extra)
    return content.getvalue()


def turned(orientation: int, kind: str) -> bytes:
    """The two halves in a file whose EXIF says how it is to be turned."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return saved(halves(), kind, exif=exif.tobytes(), **({"quality": 95} if kind != "PNG" else {}))


def animated(kind: str) -> bytes:
    return saved(halves(), kind, save_all=True, append_images=[halves(left=(0, 200, 0))])


def multi_picture_jpeg() -> bytes:
    return saved(halves(), "MPO", save_all=True, append_images=[halves(left=(0, 200, 0))])


def claiming(width: int, height: int) -> bytes:
    """A small PNG whose head claims a size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    whole = saved(halves())
    return (
        whole[:8]
        + struct.pack(">I", 13)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + whole[33:]
    )


def claiming_webp(width: int, height: int) -> bytes:
    """A head of an extended WebP file that claims a size, and nothing behind it."""
    sides = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + sides


def sixteen_bit_grey() -> bytes:
    values = np.full((HEIGHT, WIDTH), 100 << 8, np.uint16)
    return saved(Image.fromarray(values))


RED, BLUE = (200, 0, 0), (0, 0, 200)
# Name: file, and the colours expected on the left and on the right.
READ: dict[str, tuple[Callable[[], bytes], Any, Any]] = {
    "png": (lambda: saved(halves()), RED, BLUE),
    "jpeg": (lambda: saved(halves(), "JPEG", quality=95), RED, BLUE),
    "webp": (lambda: saved(halves(), "WEBP", lossless=True), RED, BLUE),
    "lossy webp": (lambda: saved(halves(), "WEBP", quality=95), RED, BLUE),
    "grey": (lambda: saved(halves("L", 90, 10)), (90,) * 3, (10,) * 3),
    "black and white": (lambda: saved(halves("1", 1, 0)), (255,) * 3, (0,) * 3),
    "16-bit grey takes the upper 8 bits": (sixteen_bit_grey, (100,) * 3, (100,) * 3),
    "palette": (lambda: saved(halves().quantize(4)), RED, BLUE),
    "palette with a transparent colour": (
        lambda: saved(halves().quantize(2), transparency=halves().quantize(2).getpixel((0, 0))),
        (255,) * 3,
        BLUE,
    ),
    "alpha over white": (
        lambda: saved(halves("RGBA", (200, 0, 0, 0), (0, 0, 200, 255))),
        (255,) * 3,
        BLUE,
    ),
    "half transparent": (
        lambda: saved(halves("LA", (0, 128), (0, 255))),
        (127,) * 3,
        (0,) * 3,
    ),
    "cmyk jpeg": (
        lambda: saved(halves("CMYK", (0, 255, 255, 0), (255, 255, 0, 0)), "JPEG", quality=95),
        (255, 0, 0),
        (0, 0, 255),
    ),
    "mirrored by exif": (lambda: turned(2, "JPEG"), BLUE, RED),
    "upside down by exif": (lambda: turned(3, "PNG"), BLUE, RED),
    "exif of a value that means nothing": (lambda: turned(77, "PNG"), RED, BLUE),
    "several pictures in a jpeg: the first": (multi_picture_jpeg, RED, BLUE),
}
# Name: file, and what the refusal says.
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "expected a PNG, JPEG or WebP file, got nothing"),
    "text": (lambda: b"<svg></svg>", "bytes that begin with 3c 73 76 67"),
    "gif": (lambda: saved(halves(), "GIF"), "expected a PNG, JPEG or WebP file"),
    "tiff": (lambda: saved(halves(), "TIFF"), "expected a PNG, JPEG or WebP file"),
    "truncated png": (lambda: saved(halves())[:-30], "a broken one"),
    "truncated jpeg": (lambda: saved(halves(), "JPEG")[:-60], "a broken one"),
    "truncated webp": (lambda: saved(halves(), "WEBP")[:-10], "expected a"),
    "head of a png only": (lambda: saved(halves())[:20], "expected a"),
    "flipped bits": (
        lambda: bytes(b ^ (0xFF if 45 < at < 60 else 0) for at, b in enumerate(saved(halves()))),
        "a broken one",
    ),
    "1 x 1": (lambda: saved(Image.new("RGB", (1, 1))), "at least 16 pixels, got 1 x 1"),
    "a thin line": (lambda: saved(Image.new("RGB", (400, 15))), "at least 16 pixels, got 400 x 15"),
    "30,000 x 30,000 by its head": (lambda: claiming(30_000, 30_000), f"at most {MAX_PIXELS}"),
    "a bomb that Pillow lets pass": (lambda: claiming(9_000, 9_000), "got 9000 x 9000"),
    "30,000 x 30,000 in webp": (lambda: claiming_webp(30_000, 30_000), "got 30000 x 30000"),
    "0 x 0": (lambda: claiming(0, 0), "expected"),
    "too wide": (lambda: saved(Image.new("1", (16_385, 16))), "sides of at most 16384"),
    "animated png": (lambda: animated("PNG"), "expected a still picture, got an animation of 2"),
    "animated webp": (lambda: animated("WEBP"), "expected a still picture, got an animation of 2"),
}


@pytest.mark.parametrize("name", READ)
def test_what_can_be_read_is_converted_as_documented(name: str) -> None:
    make, left, right = READ[name]
    picture = read_picture(make(), "image")

    assert picture.rgb.shape[:2] == (HEIGHT, WIDTH)
    assert picture.rgb.dtype == np.uint8
    assert tuple(map(int, picture.rgb[8, 3])) == pytest.approx(left, abs=9)
    assert tuple(map(int, picture.rgb[8, -4])) == pytest.approx(right, abs=9)


def test_a_picture_that_lies_on_its_side_is_set_upright() -> None:
    picture = read_picture(turned(6, "WEBP"), "image")

    assert picture.rgb.shape[:2] == (WIDTH, HEIGHT)
    assert tuple(picture.rgb[2, 8]) == pytest.approx(RED, abs=9)


def test_sixteen_bit_colour_takes_the_upper_eight() -> None:
    row = b"\0" + struct.pack(">3H", 0x80FF, 0x1000, 0xFFFF) * 16
    head = b"IHDR" + struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(row * 16)
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (head, body, b"IEND")
    ]
    picture = read_picture(b"\x89PNG\r\n\x1a\n" + b"".join(chunks), "image")

    assert tuple(picture.rgb[0, 0]) == (0x80, 0x10, 0xFF)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_is_refused_by_its_field_with_what_was_expected(name: str) -> None:
    make, said = REFUSED[name]
    with pytest.raises(RequestError) as refused:
        read_picture(make(), "inpaint.image")

    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [each.field for each in refused.value.violations] == ["inpaint.image"]
    assert said in refused.value.message


def test_the_declared_size_is_read_without_decoding() -> None:
    cut = saved(halves())[:-30]
    assert declared_size(cut, "image") == (HEIGHT, WIDTH)


def test_alpha_is_kept_beside_the_colours() -> None:
    assert read_picture(saved(halves()), "image").alpha is None
    alpha = read_picture(saved(halves("RGBA", (9, 9, 9, 0), (9, 9, 9, 255))), "image").alpha
    assert alpha is not None
    assert (alpha[:, : WIDTH // 2] == 0).all()
    assert (alpha[:, WIDTH // 2 :] == 255).all()


@pytest.mark.parametrize(
    "mask",
    [
        halves("L", 255, 0),
        halves("L", 128, 127),
        halves("1", 1, 0),
        halves("RGB", (255, 255, 255), (0, 0, 0)),
        halves("RGBA", (255, 255, 255, 255), (255, 255, 255, 0)),
    ],
    ids=lambda mask: mask.mode,
)
def test_a_mask_is_where_it_is_white(mask: Image.Image) -> None:
    read = read_mask(saved(mask), "mask", (HEIGHT, WIDTH))

    assert read[:, : WIDTH // 2].all()
    assert not read[:, WIDTH // 2 :].any()


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(RequestError, match="mask: expected the picture's 24 x 17 pixels, got 24 x"):
        read_mask(saved(halves("L", 255, 0)), "mask", (HEIGHT + 1, WIDTH))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_bytes_at_random_are_read_or_refused(data: st.DataObject) -> None:
    sort = data.draw(st.sampled_from(["", "PNG", "JPEG", "WEBP", "MPO"]))
    content = bytearray(saved(halves(), sort) if sort else data.draw(st.binary(max_size=200)))
    for _ in range(data.draw(st.integers(0, 6)) if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    content = content[: cut or None]
    with suppress(RequestError):
        picture = read_picture(bytes(content), "image")
        assert picture.rgb.ndim == 3
