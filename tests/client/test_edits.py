"""Edits from Python: files, bytes and images alike, in both clients."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from muse_client import (
    AsyncMuseClient,
    InvalidRequest,
    MuseClient,
    Progress,
    outpainting,
)
from PIL import Image

from tests.picture_files import noise
from tests.small_stages import House


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(noise())


@pytest.fixture
def mask() -> Image.Image:
    mask = np.zeros((32, 32), np.uint8)
    mask[:16] = 255
    return Image.fromarray(mask)


async def test_both_clients_make_the_same_edits(
    house: House, image: Image.Image, mask: Image.Image
) -> None:
    def blocking(client: MuseClient) -> list[Any]:
        return [
            client.inpaint(image, mask, "a fox", seed=9),
            client.outpaint(image, "a fox", right_px=16, top_px=3, seed=9),
            client.mask_free_edit(
                image, "a fox", iterations=4, return_iterations=[2], fraction=0.5, seed=9, count=2
            ),
            client.vary(image, strength=0.3, seed=9),
        ]

    with MuseClient(house.address) as client:
        one = await asyncio.to_thread(blocking, client)
    async with AsyncMuseClient(house.address) as other:
        two = [
            await other.inpaint(image, mask, "a fox", seed=9),
            await other.outpaint(image, "a fox", right_px=16, top_px=3, seed=9),
            await other.mask_free_edit(
                image, "a fox", iterations=4, return_iterations=[2], fraction=0.5, seed=9, count=2
            ),
            await other.vary(image, strength=0.3, seed=9),
        ]

    assert [[each.png for each in edit] for edit in one] == [
        [each.png for each in edit] for edit in two
    ]
    assert one[1][0].image.size == (48, 35)
    assert [(each.index, each.iteration) for each in one[2]] == [(0, 2), (0, 4), (1, 2), (1, 4)]
    assert one[3][0].iteration is None


async def test_a_file_its_bytes_and_the_image_are_the_same(
    house: House, image: Image.Image, tmp_path: Path
) -> None:
    file = tmp_path / "picture.png"
    image.save(file)
    async with AsyncMuseClient(house.address) as client:
        made = [
            (await client.vary(each, "a fox", seed=1))[0].png
            for each in (image, file, str(file), file.read_bytes())
        ]
    assert len(set(made)) == 1


async def test_steps_say_which_part_of_a_picture_they_are_of(
    house: House, image: Image.Image
) -> None:
    async with AsyncMuseClient(house.address) as client:
        message = outpainting(image, right_px=32)
        steps = [
            event
            async for event in client.events("a fox", outpaint=message)
            if isinstance(event, Progress) and event.stage == "superres"
        ]
    assert [(step.part, step.parts, step.step) for step in steps] == [
        (part, 2, step) for part in range(2) for step in (1, 2, 3)
    ]


async def test_what_does_not_fit_the_wire_is_an_invalid_request(
    house: House, image: Image.Image
) -> None:
    async with AsyncMuseClient(house.address) as client:
        with pytest.raises(InvalidRequest, match=r"outpaint.left_px: expected a number from 0 up"):
            await client.outpaint(image, "a fox", left_px=-1)
        with pytest.raises(
            InvalidRequest, match=r"mask_free_edit.return_iterations: expected iterations"
        ):
            await client.mask_free_edit(image, "a fox", return_iterations=[-5])
        with pytest.raises(InvalidRequest, match=r"vary.strength: expected more than 0 to 1"):
            await client.vary(image, strength=-1)
