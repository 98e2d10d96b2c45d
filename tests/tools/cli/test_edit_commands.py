"""The edits' commands: files in, files out; a mistake is one line, and nothing is started."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.picture_files import noise
from tests.small_stages import House
from tests.tools.cli.running import check_refused, files_in, muse

UNREACHABLE = "127.0.0.1:1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of a picture and a mask."""
    Image.fromarray(noise(40, 32)).save(tmp_path / "picture.png")
    mask = np.zeros((40, 32), np.uint8)
    mask[:16] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path


COMMANDS: list[tuple[list[str], dict[str, tuple[int, int]]]] = [
    (["inpaint", "picture.png", "mask.png", "a fox", "--seed=1"], {"muse": (32, 40)}),
    (["outpaint", "picture.png", "a fox", "--right=10", "--top=2"], {"muse": (42, 42)}),
    (
        [
            "mask-free-edit",
            "picture.png",
            "a fox",
            "--iterations=6",
            "--fraction=0.1",
            "--return-iterations=2,4",
        ],
        {"muse-after-2": (32, 40), "muse-after-4": (32, 40), "muse-after-6": (32, 40)},
    ),
    (
        ["vary", "picture.png", "--strength=0.4", "--count=2"],
        {"muse-0": (32, 40), "muse-1": (32, 40)},
    ),
]


@pytest.mark.parametrize(("words", "files"), COMMANDS, ids=lambda value: str(value)[2:9])
async def test_a_command_writes_its_pictures(
    house: House, folder: Path, words: list[str], files: dict[str, tuple[int, int]]
) -> None:
    ended = await asyncio.to_thread(muse, *words, "--server", house.address, cwd=folder)

    assert ended.returncode == 0, ended.stderr
    sheet = {"muse-sheet"} if len(files) > 1 else set()
    assert {file.stem for file in (folder / "out").iterdir()} == files.keys() | sheet
    for name, size in files.items():
        with Image.open(folder / "out" / f"{name}.png") as image:
            assert image.size == size
    assert "whole request" in ended.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["inpaint", "none.png", "mask.png", "a fox"], "muse: [Errno 2] No such file"),
        (["outpaint", "picture.png", "a fox", "--right=-1"], "muse: outpaint.right_px: expected a"),
        (
            ["mask-free-edit", "picture.png", "a fox", "--return-iterations=x"],
            "muse: return_iterations: expected numbers such as 25",
        ),
        (["vary", "mask.png", "--out=a.gif"], "muse: out: expected a name that ends in .png"),
    ],
)
def test_a_wrong_one_says_why_in_one_line(folder: Path, words: list[str], said: str) -> None:
    before = files_in(folder)
    check_refused(muse(*words, "--server", UNREACHABLE, cwd=folder), said)
    assert files_in(folder) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["inpaint", "picture.png", "picture.png", "a fox"], "muse: inpaint.mask: expected a mask"),
        (["outpaint", "picture.png", "a fox"], "muse: outpaint: expected pixels to add on a side"),
        (
            ["mask-free-edit", "picture.png", "a fox", "--fraction=2"],
            "muse: mask_free_edit.fraction: expect",
        ),
        (
            ["mask-free-edit", "picture.png", "a fox", "--steps=5"],
            "muse: base.steps: expected not set in a",
        ),
        (["vary", "picture.png", "--strength=0"], "muse: vary.strength: expected more than 0 to 1"),
    ],
)
async def test_what_the_server_refuses_is_shown_in_one_line(
    house: House, folder: Path, words: list[str], said: str
) -> None:
    before = files_in(folder)
    ended = await asyncio.to_thread(muse, *words, "--server", house.address, cwd=folder)
    check_refused(ended, said)
    assert files_in(folder) == before
