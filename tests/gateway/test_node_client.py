"""OpenAI's own client for Node, unmodified."""

import json
from pathlib import Path

import numpy as np
import pytest
from muse_client import AsyncMuseClient

from tests.examples.running import node_for, run
from tests.gateway.conftest import Gateway
from tests.gateway.pictures import SIDE_PX, file_of, noise, pixels_of
from tests.small_stages import House

FOLDER = Path(__file__).parent / "node"


@pytest.fixture
def node() -> str:
    """The program, where it and OpenAI's package are there."""
    return node_for(FOLDER)


async def test_it_generates_streams_edits_and_varies(
    node: str, house: House, gateway: Gateway, tmp_path: Path
) -> None:
    mask = np.full((SIDE_PX, SIDE_PX, 4), 255, np.uint8)
    mask[:, : SIDE_PX // 2, 3] = 0
    files = tmp_path / "picture.png", tmp_path / "mask.png"
    for file, pixels in zip(files, (noise(), mask), strict=True):
        file.write_bytes(file_of(pixels))
    status, output = await run(
        node, FOLDER / "client.js", f"{gateway.url}/v1", *files, cwd=tmp_path
    )

    assert status == 0, output
    came = json.loads(output)
    assert came["models"] == ["tiny"]
    async with AsyncMuseClient(house.address) as muse:
        (expected,) = await muse.generate("a fox", seed=7)
    assert (pixels_of(came["generated"]["b64_json"]) == np.asarray(expected.image)).all()
    assert came["generated"]["seed"] == 7
    assert house.stages["base"].asked[0].sampling.steps == 9
    partial, completed = "image_generation.partial_image", "image_generation.completed"
    assert came["streamed"] == [partial, partial, completed]
    kept = np.s_[:, SIDE_PX // 2 :]
    assert (pixels_of(came["repainted"])[kept] == noise()[kept]).all()
    assert came["varied"] == 2
    assert came["refused"] == {"name": "BadRequestError", "status": 400, "param": "size"}
