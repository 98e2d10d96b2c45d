"""Pictures as files: every format says the same of itself, and a sheet shows them in order."""

import io
import resource
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest, Provenance
from muse_client import GeneratedImage
from PIL import Image

from services.orchestrator.metadata import picture_fields, png_metadata
from services.pictures.sheets import GAP_PX
from services.pictures.xmp import SOURCE_TYPE
from tools.cli.image_files import save_picture, save_sheet

PROMPT = 'a "fox" & <two> owls\u2014\u72d0'
DESCRIPTION = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"


def picture(index: int = 0, shade: int = 200) -> GeneratedImage:
    """A finished picture of one colour."""
    request = GenerateRequest(prompt=PROMPT, negative_prompt="rain", count=1)
    provenance = Provenance(
        preset="tiny", checkpoints={"base": "sha256:1", "tokenizer/low": "sha256:2"}
    )
    content = io.BytesIO()
    Image.new("RGB", (16, 8), (shade, 0, 0)).save(
        content, "PNG", pnginfo=png_metadata(picture_fields(request, 7 + index, provenance))
    )
    return GeneratedImage(index=index, seed=7 + index, file=content.getvalue())


@pytest.mark.parametrize("name", ["a.png", "b.jpg", "c.JPEG", "d.webp"])
def test_every_format_carries_prompt_seed_checkpoints_and_that_it_was_generated(
    tmp_path: Path, name: str
) -> None:
    file = tmp_path / "new" / name
    save_picture(picture(), file)

    with Image.open(file) as image:
        assert image.format == {"p": "PNG", "j": "JPEG", "J": "JPEG", "w": "WEBP"}[name[2]]
        assert image.convert("RGB").getpixel((8, 4)) == pytest.approx((200, 0, 0), abs=3)
        packet = image.info.get("xmp") or image.info["XML:com.adobe.xmp"]
    if isinstance(packet, bytes):
        packet = packet.decode()
    tree = ElementTree.fromstring(packet[packet.index("<x:xmpmeta") : packet.index("<?xpacket e")])
    description = next(tree.iter(DESCRIPTION))
    own = "{urn:muse:picture:1}"
    assert description.get(own + "prompt") == PROMPT
    assert description.get(own + "negative_prompt") == "rain"
    assert description.get(own + "seed") == "7"
    assert description.get(own + "preset") == "tiny"
    assert "sha256:2" in str(description.get(own + "checkpoints"))
    assert SOURCE_TYPE in description.attrib.values()
    assert description[0][0][0].text == PROMPT


def test_a_png_is_written_byte_for_byte(tmp_path: Path) -> None:
    save_picture(picture(), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == picture().png


def test_a_name_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a name that ends in \.png, .*got .*a\.gif"):
        save_picture(picture(), tmp_path / "a.gif")


def test_a_sheet_shows_the_pictures_in_order(tmp_path: Path) -> None:
    save_sheet([picture(index, 50 * index + 50) for index in range(3)], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (2 * 16 + 3 * GAP_PX, 2 * 8 + 3 * GAP_PX)
        centres = [(12, 8), (32, 8), (12, 20), (32, 20)]
        red = np.asarray(sheet)[..., 0]
        assert [red[down, across] for across, down in centres] == [50, 100, 150, 255]


@pytest.mark.parametrize("name", ["sheet.png", "sheet.jpg", "sheet.webp"])
def test_a_sheet_says_where_its_pictures_come_from(tmp_path: Path, name: str) -> None:
    save_sheet([picture(index) for index in range(3)], tmp_path / name)
    with Image.open(tmp_path / name) as sheet:
        sheet.load()
        description = next(ElementTree.fromstring(sheet.info["xmp"]).iter(DESCRIPTION))
    assert description.get("{urn:muse:picture:1}seed") == "7, 8, 9"
    assert description.get("{urn:muse:picture:1}prompt") == PROMPT
    assert SOURCE_TYPE in description.attrib.values()


@contextmanager
def full_disk() -> Iterator[None]:
    """Makes every write beyond a few bytes fail in this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["a.png", "b.jpg", "d.webp"])
def test_a_file_that_cannot_be_written_whole_stays_as_it_was(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(b"before")
    with pytest.raises(RuntimeError, match=f"^cannot write .*{name}: File too large"), full_disk():
        save_picture(picture(), file)
    assert file.read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to("there.png")
    save_picture(picture(), tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "there.png").read_bytes() == picture().png
