"""XMP packets in files of every format, and of files that show several pictures."""

import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from services.pictures.xmp import (
    EDITED_TYPE,
    SOURCE_TYPE,
    fields_of,
    file_with_xmp,
    joint_packet,
    xmp_packet,
)
from tests.picture_files import noise, packet_of

PACKET = xmp_packet({"prompt": "a \U0001f98a & <fox>", "seed": "7"})
MUSE = "{urn:muse:picture:1}"


def attributes(packet: str | bytes) -> dict[str, str]:
    """Returns the attributes of a packet's description."""
    root = ElementTree.fromstring(packet)
    (found,) = (each.attrib for each in root.iter() if any("Digital" in key for key in each.attrib))
    return found


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF"])
def test_every_format_holds_the_packet(file_format: str) -> None:
    content = file_with_xmp(Image.fromarray(noise(8, 8)), file_format, PACKET)
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size) == (file_format, (8, 8))
    assert packet_of(content) == PACKET


@pytest.mark.parametrize("file_format", ["WEBP", "GIF"])
def test_an_animation_holds_the_packet_and_keeps_its_frames(file_format: str) -> None:
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 90, 250)]
    content = file_with_xmp(
        frames[0], file_format, PACKET, save_all=True, append_images=frames[1:], duration=120
    )
    assert packet_of(content) == PACKET
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 3
        for frame, shade in enumerate((0, 90, 250)):
            image.seek(frame)
            image.load()
            assert image.info["duration"] == 120
            assert image.convert("RGB").getpixel((4, 4)) == pytest.approx((shade, 0, 0), abs=4)


def test_a_reader_that_skips_blocks_of_a_gif_comes_out_of_the_packet_at_any_byte() -> None:
    content = file_with_xmp(Image.new("P", (8, 8)), "GIF", PACKET)
    begin = content.index(b"XMP DataXMP") + len(b"XMP DataXMP")
    ends = set()
    for start in range(begin, begin + len(PACKET.encode())):
        place = start
        while length := content[place]:
            place += 1 + length
        ends.add(place + 1)
    (end,) = ends
    assert content[end : end + 1] in (b"!", b",")  # the next extension, or the first frame


def test_the_packet_of_several_pictures_lists_what_differs() -> None:
    first = {"prompt": "a fox", "seed": "7", "preset": "tiny"}
    found = attributes(joint_packet([first, {**first, "seed": "8"}, first]))
    assert found[MUSE + "seed"] == "7, 8"
    assert (found[MUSE + "prompt"], found[MUSE + "preset"]) == ("a fox", "tiny")
    assert SOURCE_TYPE in found.values()


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_fields_are_read_again_from_a_file(file_format: str) -> None:
    fields = {"prompt": "a \U0001f98a & <fox>\n'\"", "seed": "7"}
    packet = xmp_packet({**fields, "negative_prompt": ""})
    content = file_with_xmp(Image.fromarray(noise(8, 8)), file_format, packet)
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        assert fields_of(image) == fields


def test_a_file_without_a_packet_has_no_fields() -> None:
    assert fields_of(Image.fromarray(noise(8, 8))) == {}


def test_a_jpeg_holds_the_longest_prompts() -> None:
    fields = {"prompt": "&" * 4096, "negative_prompt": "&" * 4096, "checkpoints": "0" * 4096}
    content = file_with_xmp(Image.fromarray(noise(8, 8)), "JPEG", xmp_packet(fields))
    with Image.open(io.BytesIO(content)) as image:
        assert fields_of(image) == fields
    assert "&amp;</rdf:li>" not in xmp_packet(fields)
    assert "&amp;</rdf:li>" in xmp_packet({**fields, "checkpoints": ""})  # where it fits


def test_the_packet_of_an_edit_without_a_prompt_says_so() -> None:
    found = attributes(joint_packet([{"edit": "vary"}]))
    assert EDITED_TYPE in found.values()
    assert MUSE + "prompt" not in found


def test_pixels_of_a_png_are_those_of_the_image() -> None:
    pixels = noise(8, 8)
    with Image.open(io.BytesIO(file_with_xmp(Image.fromarray(pixels), "PNG", PACKET))) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)
