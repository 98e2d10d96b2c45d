"""Every sort of bad input to an edit over the wire: its expected answer, and the next one works.

What is unusual but can be read is converted as documented in `pictures.py`; the rest is refused
by its field. `test_pictures.py` has more sorts of files, without servers.
"""

import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from muse.orchestrator.v1.orchestrator_pb2 import Inpaint, MaskFreeEdit, Outpaint, Vary
from PIL import Image

from tests.orchestrator.edits.conftest import Studio
from tests.orchestrator.edits.drawn import edits
from tests.small_stages import House

HEIGHT, WIDTH = 16, 24
BLUE = (0, 0, 200)


def picture(mode: str = "RGB", colour: Any = BLUE) -> Image.Image:
    return Image.new(mode, (WIDTH, HEIGHT), colour)


def saved(image: Image.Image, kind: str = "PNG", **extra: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **extra)
    return content.getvalue()


def noisy(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    return saved(Image.fromarray(pixels), kind)


def chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def png(width: int, height: int, rows: bytes, bits: int = 8) -> bytes:
    """A PNG in colour of given rows, as many as there may be of them."""
    head = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    body = zlib.compress(rows, 9)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", head), chunk(b"IDAT", body), chunk(b"IEND", b""))
    )


@cache
def bomb() -> bytes:
    """72 MiB of black in a small file with nothing wrong: only the declared size tells."""
    side = 5_000
    return png(side, side, bytes((3 * side + 1) * side))


def mask(height: int = HEIGHT, width: int = WIDTH, shade: int = 255) -> bytes:
    return saved(Image.new("L", (width, height), shade))


def opaque_mask() -> bytes:
    return saved(Image.new("RGBA", (WIDTH, HEIGHT), (255, 255, 255, 255)))


def sixteen_bits() -> bytes:
    row = b"\0" + struct.pack(">3H", 0x00FF, 0x0001, 200 << 8) * WIDTH
    return png(WIDTH, HEIGHT, row * HEIGHT, bits=16)


FILES_REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "expected a PNG, JPEG or WebP file, got nothing"),
    "not an image": (lambda: b"%PDF-1.7 words", "expected a PNG, JPEG or WebP file, got 14 bytes"),
    "another format": (lambda: saved(picture(), "GIF"), "expected a PNG, JPEG or WebP file"),
    "truncated png": (lambda: noisy("PNG")[:-200], "expected a whole PNG, JPEG or WebP file"),
    "truncated jpeg": (lambda: noisy("JPEG")[:-200], "expected a whole PNG, JPEG or WebP file"),
    "1 x 1": (lambda: saved(Image.new("RGB", (1, 1))), "at least 16 pixels, got 1 x 1"),
    "30,000 x 30,000": (lambda: png(30_000, 30_000, b""), "expected at most 16777216 pixels"),
    "decompression bomb": (bomb, "expected at most 16777216 pixels and sides of at most 16384"),
    "animated png": (
        lambda: saved(picture(), save_all=True, append_images=[picture(colour=(9, 9, 9))]),
        "expected a still picture, got an animation of 2 pictures",
    ),
    "animated webp": (
        lambda: saved(picture(), "WEBP", save_all=True, append_images=[picture(colour=(9, 9, 9))]),
        "expected a still picture, got an animation of 2 pictures",
    ),
}
# Converted: name, file, and the colour that comes back where nothing is painted.
FILES_CONVERTED: dict[str, tuple[Callable[[], bytes], tuple[int, int, int]]] = {
    "cmyk": (
        lambda: saved(picture("CMYK", (255, 255, 0, 0)), "JPEG", quality=100, subsampling=0),
        (0, 0, 255),
    ),
    "16 bits of colour: the upper 8": (sixteen_bits, BLUE),
    "16 bits of grey: the upper 8": (
        lambda: saved(Image.fromarray(np.full((HEIGHT, WIDTH), (90 << 8) + 255, np.uint16))),
        (90, 90, 90),
    ),
    "palette": (lambda: saved(picture().quantize(2)), BLUE),
    "alpha over white": (lambda: saved(picture("RGBA", (*BLUE, 0))), (255, 255, 255)),
    "half alpha over white": (lambda: saved(picture("LA", (0, 128))), (127, 127, 127)),
    "grey": (lambda: saved(picture("L", 77)), (77, 77, 77)),
}
EDITS: dict[str, Callable[[bytes], dict[str, Any]]] = {
    "inpaint": lambda image: {"inpaint": Inpaint(image=image, mask=mask())},
    "outpaint": lambda image: {"outpaint": Outpaint(image=image, right_px=9)},
    "mask_free_edit": lambda image: {"mask_free_edit": MaskFreeEdit(image=image)},
    "vary": lambda image: {"vary": Vary(image=image)},
}
GOOD = saved(picture())
NUMBERS_REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "mask of another size": (
        "inpaint.mask",
        {"inpaint": Inpaint(image=GOOD, mask=mask(HEIGHT, WIDTH + 1))},
        "expected the picture's 24 x 16 pixels, got 25 x 16",
    ),
    "mask without the transparency that is to mark": (
        "inpaint.mask",
        {"inpaint": Inpaint(image=GOOD, mask=mask(), mask_is_alpha=True)},
        "expected transparent pixels where the picture is repainted, got a mask without",
    ),
    "mask whose transparency marks nothing": (
        "inpaint.mask",
        {"inpaint": Inpaint(image=GOOD, mask=opaque_mask(), mask_is_alpha=True)},
        "expected a mask that marks a pixel to repaint, got one without a transparent pixel",
    ),
    "empty mask": (
        "inpaint.mask",
        {"inpaint": Inpaint(image=GOOD, mask=mask(shade=0))},
        "expected a mask that marks a pixel to repaint, got one without a white pixel",
    ),
    "no mask": (
        "inpaint.mask",
        {"inpaint": Inpaint(image=GOOD)},
        "expected a mask, or a picture with alpha",
    ),
    "no mask, and alpha that covers nothing": (
        "inpaint.mask",
        {"inpaint": Inpaint(image=saved(picture("RGBA", (*BLUE, 255))))},
        "a picture without a transparent pixel",
    ),
    "a feather too wide": (
        "inpaint.feather_px",
        {"inpaint": Inpaint(image=GOOD, mask=mask(), feather_px=1025)},
        "expected 0 to 1024, got 1025",
    ),
    "outpaint by 0": (
        "outpaint",
        {"outpaint": Outpaint(image=GOOD)},
        "expected pixels to add on a side, got 0 on all four",
    ),
    "outpaint by -1, as the wire has it": (
        "outpaint.left_px",
        # A varint of ten bytes, as every language writes a negative int32 in field 2.
        {"outpaint": Outpaint.FromString(b"\x10" + b"\xff" * 9 + b"\x01")},
        "expected 0 to 16384, got 4294967295",
    ),
    "outpaint by 100,000": (
        "outpaint.right_px",
        {"outpaint": Outpaint(image=GOOD, right_px=100_000)},
        "expected 0 to 16384, got 100000",
    ),
    **{
        f"fraction {fraction}": (
            "mask_free_edit.fraction",
            {"mask_free_edit": MaskFreeEdit(image=GOOD, fraction=fraction)},
            "expected more than 0 to 1",
        )
        for fraction in (0, 2, -0.1, float("nan"), float("inf"))
    },
    **{
        f"iterations {iterations}": (
            "mask_free_edit.iterations",
            {"mask_free_edit": MaskFreeEdit(image=GOOD, iterations=iterations)},
            f"expected 1 to 256, got {iterations}",
        )
        for iterations in (0, 257, 2**32 - 1)
    },
    "an iteration that never comes": (
        "mask_free_edit.return_iterations",
        {"mask_free_edit": MaskFreeEdit(image=GOOD, iterations=9, return_iterations=[10])},
        "expected 0 to 9, got 10",
    ),
    "too many iterations to return": (
        "mask_free_edit.return_iterations",
        {"mask_free_edit": MaskFreeEdit(image=GOOD, return_iterations=range(17))},
        "expected at most 16, got 17",
    ),
    **{
        f"{name} of strength {strength}": (
            f"{name}.strength",
            {name: kind(image=GOOD, strength=strength)},
            "expected more than 0 to 1",
        )
        for name, kind in (("mask_free_edit", MaskFreeEdit), ("vary", Vary))
        for strength in (0, 1.01, -0.5, float("nan"))
    },
    "strength beside iterations": (
        "mask_free_edit.strength",
        {"mask_free_edit": MaskFreeEdit(image=GOOD, strength=0.5, iterations=9)},
        "expected not set beside iterations",
    ),
}


async def refused(house: House, field: str, said: str, **wrong: Any) -> None:
    """Holds if it is refused by that field, no stage was called and the next request works."""
    refusal = await house.refusal(**wrong)

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in refusal.violations] == [field]
    assert said in refusal.message
    assert house.calls() == 0
    assert await house.works()


@pytest.mark.parametrize("name", FILES_REFUSED)
@pytest.mark.parametrize("edit", EDITS)
async def test_a_file_that_cannot_be_read_is_refused_in_every_edit(
    house: House, edit: str, name: str
) -> None:
    make, said = FILES_REFUSED[name]
    await refused(house, f"{edit}.image", said, **EDITS[edit](make()))


@pytest.mark.parametrize("name", [name for name in FILES_REFUSED if name != "nothing"])
async def test_and_as_a_mask(house: House, name: str) -> None:
    make, said = FILES_REFUSED[name]
    wrong = Inpaint(image=GOOD, mask=make())
    await refused(house, "inpaint.mask", said, inpaint=wrong)


@pytest.mark.parametrize("name", NUMBERS_REFUSED)
async def test_a_number_or_a_mask_that_is_wrong_is_refused(house: House, name: str) -> None:
    field, wrong, said = NUMBERS_REFUSED[name]
    await refused(house, field, said, **wrong)


@pytest.mark.parametrize("name", FILES_CONVERTED)
async def test_an_unusual_file_is_converted_and_comes_back_beside_what_is_painted(
    studio: Studio, name: str
) -> None:
    make, colour = FILES_CONVERTED[name]
    result = await studio.pixels(outpaint=Outpaint(image=make(), right_px=8))

    assert result.shape == (HEIGHT, WIDTH + 8, 3)
    kept = result[:, :WIDTH].reshape(-1, 3)
    assert np.abs(kept.astype(int) - colour).max() <= 2  # a JPEG is not exact
    assert await studio.house.works()


async def test_a_full_mask_is_no_mistake_and_all_is_painted(studio: Studio) -> None:
    result = await studio.pixels(inpaint=Inpaint(image=GOOD, mask=mask()))

    assert (result == studio.seed).all()
    assert await studio.house.works()


FILE = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([GOOD, mask(), mask(shade=0), noisy("JPEG"), noisy("PNG")]),
    st.builds(
        lambda file, at, byte: file[:at] + bytes([byte]) + file[at + 1 :],
        st.sampled_from([GOOD, noisy("JPEG"), noisy("PNG")]),
        st.integers(0, 200),
        st.integers(0, 255),
    ),
)


@settings(
    max_examples=40,
    deadline=None,
    # The servers are to outlive them; and how slow a busy machine is does not matter.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(edits(FILE), st.integers(0, 3), st.integers(0, 300))
async def test_bytes_and_fields_at_random_are_painted_or_refused_and_the_servers_go_on(
    house: House, edit: dict[str, Any], count: int, preview_every: int
) -> None:
    request = house.request(count=count, preview_every=preview_every, **edit)
    call, received = house.stub.Generate(request, timeout=60), []
    with suppress(grpc.aio.AioRpcError):
        received = [event.WhichOneof("event") async for event in call]
    if await call.code() is grpc.StatusCode.OK:
        assert received[-1] == "done"
        assert received.count("image") >= count >= 1
    else:
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT, await call.details()
        assert "expected" in await call.details()
    assert await house.works()
