"""Pictures of callers give the same request in any form; saved pictures keep their origin."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from muse_client import (
    AsyncMuseClient,
    GeneratedImage,
    InvalidRequest,
    inpainting,
    mask_free_editing,
    outpainting,
    variation,
)
from muse_client.picture_files import ImageFile, PictureFormat, file_bytes
from PIL import Image

from services.pictures.files import PictureLimits, read_picture
from services.pictures.xmp import SOURCE_TYPE
from tests.picture_files import file_of, noise, packet_of
from tests.small_stages import House

LIMITS = PictureLimits(min_side_px=1, max_side_px=64, max_pixels=4096)
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
TURNED = 6  # EXIF orientation: a quarter to the right


def of_mode(mode: str) -> Image.Image:
    """Returns noise in a mode."""
    image = Image.fromarray(noise())
    image.putalpha(Image.fromarray(noise()).convert("L"))
    if mode == "RGBa":
        return image.convert("RGBa")
    if mode == "LAB":
        return Image.frombytes("LAB", image.size, image.convert("RGB").tobytes())
    if mode == "PA":
        return image.convert("RGB").convert("P").convert("PA")
    return image.convert(mode) if mode in ("LA", "RGBA") else image.convert("RGB").convert(mode)


def seen(image: ImageFile) -> tuple[bytes, bytes | None, tuple[int, ...]]:
    """Returns colours, opacity and shape of a picture, as the servers read it."""
    picture = read_picture(file_bytes(image), LIMITS)
    alpha = None if picture.alpha is None else picture.alpha.tobytes()
    return picture.rgb.tobytes(), alpha, picture.rgb.shape


@pytest.mark.parametrize("mode", MODES)
def test_an_image_of_every_mode_is_sent_with_its_colours(mode: str) -> None:
    image = of_mode(mode)
    rgb, alpha, shape = seen(image)
    transparent = image.has_transparency_data
    assert (alpha is not None) == transparent
    assert shape == (image.height, image.width, 3)
    layered = image.convert("RGBA") if mode != "LAB" else image.convert("RGB").convert("RGBA")
    backdrop = Image.new("RGBA", image.size, "white")
    expected = Image.alpha_composite(backdrop, layered) if transparent else layered
    assert rgb == expected.convert("RGB").tobytes()


def opened_files() -> dict[str, bytes]:
    """Returns files of every format, mode and orientation that the servers read."""
    files = {}

    def add(name: str, image: Image.Image, kind: str, **options: object) -> None:
        content = io.BytesIO()
        image.save(content, kind, **options)
        files[name] = content.getvalue()

    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        add(f"png {mode}", of_mode(mode), "PNG")
    palette = of_mode("P")
    add("png P with a transparent colour", palette, "PNG", transparency=palette.getpixel((3, 3)))
    add("png P with opacities", palette, "PNG", transparency=bytes(range(256)))
    add("png L with a transparent colour", of_mode("L"), "PNG", transparency=128)
    colour = of_mode("RGB").getpixel((3, 3))
    add("png RGB with a transparent colour", of_mode("RGB"), "PNG", transparency=colour)
    grey = Image.fromarray((np.arange(1024, dtype=np.uint16) * 63).reshape(32, 32))
    add("png of 16 bits", grey, "PNG")
    for mode in ("L", "RGB", "CMYK", "YCbCr"):
        add(f"jpeg {mode}", of_mode(mode), "JPEG")
    add("webp", of_mode("RGBA"), "WEBP", lossless=True)
    exif = Image.Exif()
    exif[0x0112] = TURNED
    wide = of_mode("RGB").crop((0, 0, 32, 16))
    for kind in ("PNG", "JPEG", "WEBP"):
        add(f"{kind} on its side", wide, kind, exif=exif)
    return files


FILES = opened_files()


@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_one_request_however_it_is_given(name: str, tmp_path: Path) -> None:
    content, file = FILES[name], tmp_path / "picture"
    file.write_bytes(content)
    expected = seen(file)
    if "on its side" in name:
        assert expected[2] == (32, 16, 3)
    for same in (str(file), content, bytearray(content), memoryview(content), io.BytesIO(content)):
        assert seen(same) == expected
    with file.open("rb") as opened, Image.open(file) as image:
        assert seen(opened) == expected
        assert seen(image) == expected
        image.load()
        assert seen(image) == expected


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I"])
def test_grey_of_16_bits_keeps_its_upper_8(mode: str) -> None:
    values = (np.arange(1024) * 63).astype(np.uint16).reshape(32, 32)
    image = Image.fromarray(values)
    if mode == "I":
        image = image.convert("I")
    elif mode != "I;16":
        order = ">u2" if mode == "I;16B" else "<u2"
        image = Image.frombytes(mode, (32, 32), values.astype(order).tobytes())
    assert seen(image)[0] == np.repeat((values >> 8).astype(np.uint8), 3).tobytes()


def test_numbers_are_grey_from_0_to_255() -> None:
    values = np.linspace(0, 255, 1024, dtype=np.float32).reshape(32, 32)
    grey = np.frombuffer(seen(Image.fromarray(values))[0], np.uint8)[::3].astype(int)
    assert np.abs(grey - values.reshape(-1)).max() <= 1


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (Image.new("I", (16, 16), 70_000), "expected values of 0 to 65535 in mode I"),
        (Image.new("I", (16, 16), -1), "expected values of 0 to 65535 in mode I"),
        (Image.new("F", (16, 16), 255.5), "expected values of 0 to 255 in mode F"),
        (Image.new("F", (16, 16), float("nan")), "expected values of 0 to 255 in mode F"),
        (Image.new("RGB", (0, 16)), "expected pixels, got 0 x 16"),
        (7, "expected the name of a file, its bytes, .* got int"),
        (None, "expected the name of a file, .* got NoneType"),
        (io.StringIO("text"), "expected the name of a file, .* got StringIO"),
    ],
)
def test_what_has_no_colours_is_refused_by_a_sentence(image: ImageFile, said: str) -> None:
    for edit in (inpainting, outpainting, mask_free_editing, variation):
        with pytest.raises(InvalidRequest, match=rf"^\w+\.image: {said}"):
            edit(image)
    if image is not None:  # which stands for no mask
        with pytest.raises(InvalidRequest, match=rf"^inpaint\.mask: {said}"):
            inpainting(b"...", image)


def test_an_image_itself_does_not_change() -> None:
    image = of_mode("RGB")
    image.getexif()[0x0112] = TURNED
    before = image.tobytes(), image.mode, image.size
    file_bytes(image)
    assert (image.tobytes(), image.mode, image.size) == before


@pytest.mark.parametrize("name", ["fox.png", "fox.JPG", "fox.jpeg", "fox.webp"])
async def test_a_saved_picture_says_where_it_comes_from(
    house: House, tmp_path: Path, name: str
) -> None:
    async with AsyncMuseClient(house.address) as client:
        (picture,) = await client.generate("a fox", seed=5)
    file = tmp_path / name
    picture.save(str(file))
    with Image.open(file) as image:
        assert image.format == {".png": "PNG", ".webp": "WEBP"}.get(file.suffix, "JPEG")
    packet = packet_of(file.read_bytes())
    assert SOURCE_TYPE in packet
    assert 'muse:seed="5"' in packet
    assert (file.read_bytes() == picture.png) == (name == "fox.png")


@pytest.mark.parametrize("picture_format", ["png", "jpeg", "webp"])
async def test_a_picture_is_saved_as_it_came_in_the_format_that_was_asked_for(
    house: House, tmp_path: Path, picture_format: PictureFormat
) -> None:
    async with AsyncMuseClient(house.address) as client:
        (picture,) = await client.generate("a fox", seed=5, picture_format=picture_format)
    file = tmp_path / f"fox.{picture_format}"
    picture.save(file)
    assert file.read_bytes() == picture.file
    assert picture.image.format == picture_format.upper()
    with Image.open(io.BytesIO(picture.png)) as png:
        assert png.format == "PNG"
        np.testing.assert_array_equal(np.asarray(png), np.asarray(picture.image.convert("RGB")))
    assert packet_of(picture.png) == packet_of(picture.file)


async def test_a_format_that_there_is_not_is_refused_before_it_is_sent(house: House) -> None:
    other: Any = "gif"
    expected = r"^picture_format: expected png or jpeg or webp, got 'gif'$"
    async with AsyncMuseClient(house.address) as client:
        with pytest.raises(InvalidRequest, match=expected):
            await client.generate("a fox", picture_format=other)


def test_a_picture_that_webp_cannot_hold_is_not_saved_so(tmp_path: Path) -> None:
    wide = GeneratedImage(index=0, seed=0, file=file_of(noise(1, 2**14)))
    with pytest.raises(InvalidRequest, match="than 16383 pixels, got webp and 16384 x 1"):
        wide.save(tmp_path / "wide.webp")
    wide.save(tmp_path / "wide.jpg")
    assert [each.name for each in tmp_path.iterdir()] == ["wide.jpg"]


def test_a_picture_is_not_saved_in_another_format(tmp_path: Path) -> None:
    picture = GeneratedImage(index=0, seed=0, file=file_of(noise()))
    with pytest.raises(InvalidRequest, match=r"^file: expected .*\.png, \.jpg, .* got .*fox\.gif"):
        picture.save(tmp_path / "fox.gif")
    assert not any(tmp_path.iterdir())
