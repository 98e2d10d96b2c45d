"""The example in Node, run against an orchestrator over four small stages."""

from pathlib import Path

import pytest
from PIL import Image

from tests.examples.running import EXAMPLES, node_for, run
from tests.small_stages import HIGH_SIDE_PX, House

FOLDER = EXAMPLES / "node"


@pytest.fixture
def node() -> str:
    """The program, where it and the example's packages are there."""
    return node_for(FOLDER)


async def test_node_reads_progress_and_saves_the_picture(
    node: str, house: House, tmp_path: Path
) -> None:
    status, output = await run(
        node, FOLDER / "generate.js", "a fox", house.address, "fox.png", cwd=tmp_path
    )

    assert status == 0, output
    assert Image.open(tmp_path / "fox.png").size == (HIGH_SIDE_PX, HIGH_SIDE_PX)
    lines = output.splitlines()
    assert [line for line in lines if line.startswith("base ")] == [
        f"base {step}/12" for step in range(1, 13)
    ]
    assert "fox.png, seed 7" in lines
    assert lines[-1].startswith("done after ")


async def test_node_prints_the_status_and_the_reason_of_a_refusal(
    node: str, house: House, tmp_path: Path
) -> None:
    status, output = await run(node, FOLDER / "generate.js", "", house.address, cwd=tmp_path)

    assert status == 1
    assert output.startswith("INVALID_ARGUMENT: prompt")
