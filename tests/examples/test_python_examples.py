"""The examples in Python, run against an orchestrator over four small stages."""

import ast
import asyncio
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from services.runtime.wire.errors import resource_exhausted
from tests.examples.running import EXAMPLES, run_python
from tests.picture_files import noise
from tests.small_stages import HIGH_SIDE_PX, House


def test_every_example_is_in_the_index() -> None:
    index = (EXAMPLES / "README.md").read_text()
    names = {file.name for file in EXAMPLES.glob("*.py")}
    assert len(names) == 6
    assert [name for name in names if f"({name})" not in index] == []


def test_examples_of_the_client_import_nothing_but_its_wheel_and_what_that_needs() -> None:
    allowed = {"muse_client", "PIL"} | sys.stdlib_module_names
    training = {EXAMPLES / "train_tiny.py", EXAMPLES / "draw_new_object.py"}
    for file in set(EXAMPLES.glob("*.py")) - training:
        nodes = list(ast.walk(ast.parse(file.read_text())))
        plain = {
            alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
        }
        imported = plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        assert "muse_client" in imported
        assert {name.split(".")[0] for name in imported if name} <= allowed, file.name


async def test_generate_saves_a_picture_for_each_seed(house: House, tmp_path: Path) -> None:
    status, output = await run_python(
        "generate.py", "a fox", "--address", house.address, cwd=tmp_path
    )

    assert status == 0, output
    pictures = [Image.open(tmp_path / "out" / f"{seed}.png") for seed in (7, 8)]
    assert {picture.size for picture in pictures} == {(HIGH_SIDE_PX, HIGH_SIDE_PX)}
    (base,) = {request.sampling.steps for request in house.stages["base"].asked}
    assert base == 12
    assert output.count(f"{HIGH_SIDE_PX} x {HIGH_SIDE_PX} px") == 2


async def test_stream_progress_prints_every_step_and_saves_previews(
    house: House, tmp_path: Path
) -> None:
    status, output = await run_python(
        "stream_progress.py", "a fox", "--address", house.address, cwd=tmp_path
    )

    assert status == 0, output
    lines = output.splitlines()
    assert lines[0].startswith("accepted, seed ")
    assert [line for line in lines if line.startswith("base ")] == [
        f"base {step}/5" for step in range(1, 6)
    ]
    assert lines[-1].startswith("done after ")
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert files == {"base-4.png", "base-5.png", "superres-3.png", "final.png"}


async def test_inpaint_changes_no_pixel_outside_the_box(house: House, tmp_path: Path) -> None:
    before = noise(32, 32)
    Image.fromarray(before).save(tmp_path / "photo.png")

    status, output = await run_python(
        "inpaint.py",
        *("photo.png", "a pizza", "--box", "8", "0", "24", "16", "--address", house.address),
        cwd=tmp_path,
    )

    assert status == 0, output
    after = np.asarray(Image.open(tmp_path / "inpainted.png"))
    changed = (before != after).any(axis=-1)
    assert changed[4:12, 12:20].all()
    changed[:16, 8:24] = False
    assert not changed.any()


async def test_inpaint_prints_the_refusal_of_a_box_outside_the_picture(
    house: House, tmp_path: Path
) -> None:
    Image.fromarray(noise(32, 32)).save(tmp_path / "photo.png")

    status, output = await run_python(
        "inpaint.py",
        *("photo.png", "a pizza", "--box", "40", "40", "48", "48", "--address", house.address),
        cwd=tmp_path,
    )

    assert status == 1
    assert output.startswith("refused: inpaint.mask")


async def test_async_deadline_retries_when_the_server_says_so(house: House, tmp_path: Path) -> None:
    refusals = [resource_exhausted("no slot is free", retry_after_s=0.1)]

    async def refuse_once(_: int) -> None:
        if refusals:
            raise refusals.pop()

    house.stages["base"].around = refuse_once
    status, output = await run_python(
        "async_deadline.py", "a fox", "an owl", "--address", house.address, cwd=tmp_path
    )

    assert status == 0, output
    assert output.count("overloaded, again in 0.1 s") == 1
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"0.png", "1.png"}
    assert {each.sampling.min_steps for each in house.stages["base"].asked} == {8}


async def test_async_deadline_says_that_there_was_no_picture_in_time(
    house: House, tmp_path: Path
) -> None:
    async def hang(_: int) -> None:
        await asyncio.sleep(30)

    house.stages["base"].around = hang
    status, output = await run_python(
        "async_deadline.py",
        *("a fox", "--seconds", "3", "--address", house.address),
        cwd=tmp_path,
    )

    assert status == 0, output
    assert output == "a fox: no picture within 3.0 s\n"
    assert house.stages["base"].cancelled == 1
