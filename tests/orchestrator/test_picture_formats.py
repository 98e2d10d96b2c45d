"""Pictures as PNG, JPEG or WebP, as the request asks."""

import io

import grpc
import numpy as np
import pytest
from muse.orchestrator.v1.orchestrator_pb2 import GeneratedImage, Inpaint, PictureFormat, Vary
from PIL import Image

from services.orchestrator.picture_files import MAX_WEBP_SIDE_PX, QUALITY
from services.pictures.xmp import SOURCE_TYPE, fields_of
from tests.picture_files import file_of, noise, pixels_of
from tests.small_stages import House

PNG, JPEG, WEBP = PictureFormat.values()[1:]
MASK = np.pad(np.full((8, 8), 255, np.uint8), 12)
REPAINTED = Inpaint(image=file_of(noise(32, 32)), mask=file_of(MASK))  # most of it is noise


async def painted(house: House, **options: object) -> GeneratedImage:
    """Returns the picture of a request."""
    (image,) = (
        each.image for each in await house.events(seed=7, **options) if each.HasField("image")
    )
    return image


@pytest.mark.parametrize(("asked", "name"), [(JPEG, "JPEG"), (WEBP, "WEBP")])
async def test_a_picture_comes_in_the_format_that_was_asked_for(
    house: House, asked: int, name: str
) -> None:
    plain = await painted(house)
    image = await painted(house, picture_format=asked)
    assert (plain.file, image.png) == (b"", b"")
    with Image.open(io.BytesIO(image.file)) as read, Image.open(io.BytesIO(plain.png)) as png:
        assert (read.format, png.format, read.size) == (name, "PNG", png.size)
        png.load()
        assert SOURCE_TYPE in read.info["xmp"].decode()
        assert fields_of(read) == fields_of(png)
        assert fields_of(read)["seed"] == "7"
    difference = pixels_of(image.file).astype(int) - pixels_of(plain.png)
    assert np.abs(difference).mean() < 2
    assert list(image.decodes) == list(plain.decodes)


async def test_quality_is_that_of_jpeg_and_webp(house: House) -> None:
    for asked in (JPEG, WEBP):
        files = [
            (await painted(house, inpaint=REPAINTED, picture_format=asked, quality=quality)).file
            for quality in (0, QUALITY)
        ]
        assert len(files[0]) < len(files[1])
        plain = await painted(house, inpaint=REPAINTED, picture_format=asked)
        assert plain.file == files[1]
    rough = await painted(house, inpaint=REPAINTED, picture_format=PNG, quality=0)
    assert rough.png == (await painted(house, inpaint=REPAINTED)).png


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"picture_format": 9}, "picture_format: expected PNG or JPEG or WEBP, got 9"),
        ({"picture_format": JPEG, "quality": 101}, "quality: expected 0 to 100, got 101"),
    ],
)
async def test_a_format_that_there_is_not_is_refused(
    house: House, options: dict[str, int], said: str
) -> None:
    refused = await house.refusal(**options)
    assert (refused.code, refused.message) == (grpc.StatusCode.INVALID_ARGUMENT, said)


async def test_a_picture_that_webp_cannot_hold_is_refused_before_it_is_painted(
    house: House,
) -> None:
    vary = Vary(image=file_of(noise(16, MAX_WEBP_SIDE_PX + 1)))
    refused = await house.refusal(vary=vary, picture_format=WEBP)
    assert refused.code == grpc.StatusCode.INVALID_ARGUMENT
    assert refused.message == (
        "picture_format: expected PNG or JPEG with a side of more than 16383 pixels, got WEBP and "
        "16384 x 16"
    )
    image = await painted(house, vary=vary, picture_format=JPEG)
    with Image.open(io.BytesIO(image.file)) as read:
        assert read.size == (MAX_WEBP_SIDE_PX + 1, 16)
