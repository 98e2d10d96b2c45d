"""Watching a picture form: previews on the stream."""

import io
from typing import Any

import grpc
import numpy as np
import pytest
from muse.orchestrator.v1.orchestrator_pb2 import MaskFreeEdit
from muse_client import AsyncMuseClient, Progress
from PIL import Image

from services.orchestrator.previews import GREY, greyed
from tests.small_stages import House


def previews(events: list[Any]) -> list[tuple[str, int]]:
    return [
        (event.progress.stage, event.progress.step)
        for event in events
        if event.WhichOneof("event") == "progress" and event.progress.HasField("preview")
    ]


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (0, []),
        (1, [*(("base", n) for n in range(1, 6)), *(("superres", n) for n in range(1, 4))]),
        (2, [("base", 2), ("base", 4), ("base", 5), ("superres", 2), ("superres", 3)]),
        (256, [("base", 5), ("superres", 3)]),
    ],
)
async def test_there_is_one_after_every_so_many_steps_and_after_the_last(
    house: House, every: int, expected: list[tuple[str, int]]
) -> None:
    assert previews(await house.events(preview_every=every, progress=True)) == expected


async def test_it_has_the_tokens_and_a_picture_of_them_and_comes_without_progress_too(
    house: House,
) -> None:
    events = await house.events(preview_every=256, seed=77)

    steps = [event.progress for event in events if event.WhichOneof("event") == "progress"]
    assert [(step.stage, step.step, step.total) for step in steps] == [
        ("base", 5, 5),
        ("superres", 3, 3),
    ]
    tokens = steps[0].preview.tokens
    assert (np.frombuffer(tokens.ids, "<u2") == 77).all()
    assert list(steps[0].preview.known) == [1] * 4
    assert Image.open(io.BytesIO(steps[1].preview.png)).getpixel((0, 0)) == (77, 77, 77)


async def test_pictures_are_the_same_with_previews_and_without(house: House) -> None:
    async with AsyncMuseClient(house.address) as client:
        one = await client.generate("a fox", seed=3)
        other = await client.generate("a fox", seed=3, preview_every=1)
    assert one[0].png == other[0].png
    assert one[0].decodes == other[0].decodes


async def test_all_of_a_mask_free_edit_is_known_at_any_time(house: House) -> None:
    content = io.BytesIO()
    Image.new("RGB", (32, 32), (9, 0, 0)).save(content, "PNG")
    edit = MaskFreeEdit(image=content.getvalue(), iterations=4, return_iterations=[2])
    events = await house.events(mask_free_edit=edit, preview_every=4)

    (base,) = [e.progress for e in events if e.progress.stage == "base"]
    assert all(base.preview.known)
    parts = {e.progress.part for e in events if e.progress.stage == "superres"}
    assert parts == {0, 1}


def test_what_is_not_known_is_grey() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    shown = greyed(pixels, np.array([[True, False], [False, True]]))
    assert (shown[:2, :2] == 0).all()
    assert (shown[:2, 2:] == GREY).all()


async def test_the_client_hands_out_images(house: House) -> None:
    async with AsyncMuseClient(house.address) as client:
        steps = [
            event
            async for event in client.events("a fox", preview_every=2)
            if isinstance(event, Progress) and event.preview is not None
        ]
    assert steps[0].preview is not None
    assert steps[0].preview.image.size == (4, 4)
    assert steps[0].preview.known == b"\1" * 4


async def test_more_than_there_are_steps_is_refused(house: House) -> None:
    refusal = await house.refusal(preview_every=257)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.violations[0].field == "preview_every"
    assert house.calls() == 0
