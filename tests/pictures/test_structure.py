"""Files of too many parts are refused before anything decodes them."""

import random
import time
from contextlib import suppress

import pytest

from services.pictures.errors import PictureError
from services.pictures.files import PictureLimits, declared_size, read_picture
from services.pictures.structure import MAX_METADATA_BYTES, MAX_PARTS, MAX_SCANS
from tests.pictures.odd_files import jpeg_of, jpeg_of_scans, png_of, saved, webp_of

LIMITS = PictureLimits(min_side_px=1, max_side_px=9999, max_pixels=2**24)
IN_TIME_S = 2.0  # a moment, on a machine that does other things too


TOO_MUCH = {
    "a PNG of a million chunks": (png_of(1_000_000), "chunks or segments"),
    "a WebP of a million chunks": (webp_of(1_000_000), "chunks or segments"),
    "a JPEG of many short segments": (jpeg_of(MAX_PARTS + 1, 8), "chunks or segments"),
    "a JPEG of a thousand EXIF segments": (jpeg_of(1000, 65_000), "bytes of profiles"),
    "a PNG of long texts": (png_of(20, MAX_METADATA_BYTES // 10), "bytes of profiles"),
    "a JPEG of hundreds of scans": (jpeg_of_scans(300), f"at most {MAX_SCANS} scans"),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_file_of_too_many_parts_is_refused_at_once(name: str) -> None:
    content, expected = TOO_MUCH[name]
    for read in (declared_size, read_picture):
        if name.startswith("a WebP") and read is declared_size:
            continue  # its size stands in its first bytes
        begun = time.perf_counter()
        with pytest.raises(PictureError, match=expected):
            read(content, LIMITS)
        assert time.perf_counter() - begun < IN_TIME_S


@pytest.mark.parametrize(
    "content",
    [
        png_of(1000),
        webp_of(1000),
        jpeg_of(100, 60_000),
        jpeg_of_scans(MAX_SCANS - 20),
        saved("JPEG", progressive=True, comment=b"\xff\xda" * 500),
        saved("JPEG", quality=100),
    ],
    ids=["png", "webp", "exif", "scans", "a comment that looks like scans", "jpeg"],
)
def test_a_file_within_the_bounds_is_read(content: bytes) -> None:
    assert read_picture(content, LIMITS).rgb.shape == (64, 48, 3)


def test_no_bytes_make_the_bounds_fail_or_take_long() -> None:
    drawn = random.Random(0)
    for kind in ("PNG", "JPEG", "WEBP"):
        whole = saved(kind)
        for _ in range(200):
            content = bytearray(whole)
            for _ in range(drawn.randrange(1, 8)):
                content[drawn.randrange(12, len(content))] = drawn.randrange(256)
            begun = time.perf_counter()
            with suppress(PictureError):
                assert read_picture(bytes(content[: drawn.randrange(len(content))]), LIMITS)
            assert time.perf_counter() - begun < IN_TIME_S
