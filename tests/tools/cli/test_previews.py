"""The files that a command makes of previews."""

import asyncio
import io
from pathlib import Path

import numpy as np
import pytest
from muse.common.v1.tensor_pb2 import TokenGrid
from muse_client import Preview, Progress
from PIL import Image

from services.pictures.xmp import SOURCE_TYPE
from tests.picture_files import noise, packet_of
from tests.small_stages import House
from tests.tools.cli.running import muse
from tools.cli import previews
from tools.cli.previews import PreviewFiles


async def test_the_command_writes_previews_a_filmstrip_and_an_animation(
    house: House, tmp_path: Path
) -> None:
    words = ["generate", "a fox", "--seed=5", "--count=2", "--preview-dir=looks"]
    words += ["--filmstrip=strip.png", "--animate=forming.gif", "--server", house.address]

    ended = await asyncio.to_thread(muse, *words, cwd=tmp_path)

    assert ended.returncode == 0, ended.stderr
    names = sorted(file.name for file in (tmp_path / "looks").iterdir())
    assert len(names) == 2 * (5 + 3)
    assert names[0] == "0-base-001.png"
    for name in ("looks/0-base-001.png", "strip.png", "forming.gif"):
        packet = packet_of((tmp_path / name).read_bytes())
        assert SOURCE_TYPE in packet
        assert 'muse:prompt="a fox"' in packet
        assert f'muse:seed="{"5, 6" if name == "strip.png" else "5"}"' in packet
    with Image.open(tmp_path / "strip.png") as strip:
        assert strip.width > 9 * 8
        assert strip.height > 2 * 8
    with Image.open(tmp_path / "forming.gif") as forming:
        forming.seek(0)
        assert forming.size == (8, 8)
    assert "as it formed" in ended.stdout


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"filmstrip": Path("a.gif")}, "filmstrip: expected a name that ends in .png"),
        ({"animation": Path("a.png")}, "animate: expected a name that ends in .gif, .webp"),
    ],
)
def test_a_file_of_another_format_is_refused(changes: dict[str, Path], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PreviewFiles(**changes)


async def test_the_command_writes_previews_strip_and_animation_in_the_shape_of_the_picture(
    house: House, tmp_path: Path
) -> None:
    Image.fromarray(noise(20, 40)).save(tmp_path / "picture.png")
    mask = np.zeros((20, 40), np.uint8)
    mask[:10] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    words = ["inpaint", "picture.png", "mask.png", "a fox", "--preview-dir=looks"]
    words += ["--filmstrip=strip.png", "--animate=forming.gif", "--server", house.address]

    ended = await asyncio.to_thread(muse, *words, cwd=tmp_path)

    assert ended.returncode == 0, ended.stderr
    for file in (*(tmp_path / "looks").iterdir(), tmp_path / "forming.gif"):
        with Image.open(file) as image:
            assert image.size == (8, 4)
    with Image.open(tmp_path / "strip.png") as strip:
        assert strip.width == 9 * (8 + 4) + 4
        assert strip.height == 4 + 4 + 14 + 4


@pytest.mark.parametrize(("most", "suffix"), [(2**26, ".webp"), (2**26, ".jpg"), (10**6, ".png")])
def test_a_filmstrip_of_any_length_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, suffix: str
) -> None:
    monkeypatch.setattr(previews, "MOST_PIXELS", most)
    frames, content = 1200, io.BytesIO()
    Image.new("RGB", (64, 32), (200, 30, 30)).save(content, "PNG")
    preview = Preview(png=content.getvalue(), tokens=TokenGrid(), known=b"")
    strip = PreviewFiles(filmstrip=tmp_path / f"strip{suffix}")
    for step in range(frames):
        strip.add(Progress(index=0, stage="base", step=step, total=frames, preview=preview))

    [file] = strip.finish([])

    with Image.open(file) as sheet:
        assert sheet.width <= (16_383 if suffix == ".webp" else 65_500)
        assert sheet.width * sheet.height <= most
        red = (np.asarray(sheet.convert("RGB"))[..., 1] < 100).sum()
    assert red > 50 * frames  # every frame is there
