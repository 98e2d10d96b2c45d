"""`muse generate --out` asks for the format of its file."""

import asyncio
from pathlib import Path

import pytest
from muse_client import AsyncMuseClient
from muse_client.picture_files import PictureFormat
from PIL import Image

from services.pictures.xmp import fields_of
from tests.small_stages import House
from tests.tools.cli.running import files_in, muse


@pytest.mark.parametrize(("suffix", "picture_format"), [("jpg", "jpeg"), ("webp", "webp")])
async def test_the_file_is_the_one_that_the_orchestrator_made(
    house: House, tmp_path: Path, suffix: str, picture_format: PictureFormat
) -> None:
    words = ("generate", "a fox", "--server", house.address, "--seed", "7", "--count", "2")
    done = await asyncio.to_thread(muse, *words, "--out", f"fox.{suffix}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = [f"fox-{index}.{suffix}" for index in range(2)]
    assert files_in(tmp_path) == {*names, f"fox-sheet.{suffix}"}
    async with AsyncMuseClient(house.address) as client:
        pictures = await client.generate("a fox", seed=7, count=2, picture_format=picture_format)
    assert [(tmp_path / name).read_bytes() for name in names] == [each.file for each in pictures]
    with Image.open(tmp_path / f"fox-sheet.{suffix}") as sheet:
        sheet.load()
        assert fields_of(sheet)["seed"] == "7, 8"
        assert fields_of(sheet)["prompt"] == "a fox"
