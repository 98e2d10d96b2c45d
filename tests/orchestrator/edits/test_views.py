"""Previews of edits show what the result will show: its shape, and what is known as it was."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from muse.orchestrator.v1.orchestrator_pb2 import Inpaint, MaskFreeEdit, Outpaint, Vary
from PIL import Image

from services.orchestrator.edits.pictures import LIMITS
from services.orchestrator.edits.views import Overview
from services.orchestrator.previews import GREY
from tests.orchestrator.edits.conftest import Studio
from tests.picture_files import file_of, noise

CANVAS_PX = 8  # of the small stages
SHAPES = [(32, 32), (20, 50), (60, 16)]


def upper_half(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 2] = 255
    return mask


async def watched(
    studio: Studio, **edit: Any
) -> tuple[list[tuple[str, int, np.ndarray]], np.ndarray]:
    """The previews of an edit, by stage and part, and its last picture."""
    events = await studio.house.events(seed=studio.seed, preview_every=256, **edit)
    previews = []
    for event in events:
        if event.WhichOneof("event") == "progress":
            pixels = np.asarray(Image.open(io.BytesIO(event.progress.preview.png)))
            previews.append((event.progress.stage, event.progress.part, pixels))
    (*_, last) = (event.image for event in events if event.WhichOneof("event") == "image")
    return previews, np.asarray(Image.open(io.BytesIO(last.png)))


def on_canvas(height: int, width: int) -> tuple[int, int]:
    longer = max(height, width)
    return round(height * CANVAS_PX / longer), round(width * CANVAS_PX / longer)


@pytest.mark.parametrize("size", SHAPES)
async def test_an_inpainting_is_shown_in_its_shape_with_what_is_kept_as_it_was(
    studio: Studio, size: tuple[int, int]
) -> None:
    black = np.zeros((*size, 3), np.uint8)
    edit = Inpaint(image=file_of(black), mask=file_of(upper_half(*size)), feather_px=0)
    previews, result = await watched(studio, inpaint=edit)

    assert result.shape[:2] == size
    assert [stage for stage, _, _ in previews] == ["base", "superres"]
    for _, _, shown in previews:
        assert shown.shape[:2] == on_canvas(*size)
        kept = -(-len(shown) // 2)
        assert (shown[kept:] == 0).all()
        assert (shown[0] == studio.seed).any()


async def test_without_composite_it_is_shown_as_decoded(studio: Studio) -> None:
    black = np.zeros((32, 16, 3), np.uint8)
    edit = Inpaint(image=file_of(black), mask=file_of(upper_half(32, 16)), composite=False)
    ((_, _, low), (_, _, high)), _ = await watched(studio, inpaint=edit)

    assert low.shape == high.shape == (8, 4, 3)
    assert (low[3:5] > 0).any()


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("kind", ["mask_free_edit", "vary"])
async def test_other_edits_are_shown_in_their_shape(
    studio: Studio, kind: str, size: tuple[int, int]
) -> None:
    image = file_of(noise(*size))
    edit = (
        Vary(image=image)
        if kind == "vary"
        else MaskFreeEdit(image=image, iterations=3, return_iterations=[2])
    )
    previews, _ = await watched(studio, **{kind: edit})

    assert {stage for stage, _, _ in previews} == {"base", "superres"}
    assert {shown.shape[:2] for _, _, shown in previews} == {on_canvas(*size)}


async def test_an_outpainting_is_shown_growing_window_by_window_and_never_larger_than_a_canvas(
    studio: Studio,
) -> None:
    black = np.zeros((32, 32, 3), np.uint8)
    previews, result = await watched(studio, outpaint=Outpaint(image=file_of(black), right_px=96))

    assert result.shape == (32, 128, 3)
    last = {part: shown for stage, part, shown in previews if stage == "superres"}
    assert sorted(last) == list(range(6))
    for part, shown in last.items():
        assert shown.shape == (2, CANVAS_PX, 3)
        assert (shown[:, :2] < 20).all()  # the picture as it came; reducing rings a little
        there = 3 + part
        assert (shown[:, there:] == GREY).all()
        assert (shown[:, 2:there] != 0).any()


def test_an_overview_of_what_is_small_enough_holds_its_very_pixels() -> None:
    overview = Overview(10, 20, 32)
    part, at = noise(4, 6), (slice(3, 7), slice(2, 8))
    shown = overview.with_part(part, at)

    assert (overview.pixels == GREY).all()
    assert (shown[at] == part).all()
    overview.put(part, at)
    assert (overview.pixels == shown).all()
    assert (overview.pixels == GREY).any(axis=2).sum() >= 10 * 20 - 4 * 6


def test_an_overview_of_what_is_thin_still_has_a_row() -> None:
    overview = Overview(16, 16_384, 32)
    overview.put(np.zeros((16, 16, 3), np.uint8), (slice(0, 16), slice(16_368, 16_384)))

    assert overview.pixels.shape == (1, 32, 3)
    assert (overview.pixels[:, -1] == 0).all()


async def test_the_last_preview_of_a_picture_no_larger_than_the_canvas_is_its_result(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = replace(LIMITS, min_side_px=4)
    monkeypatch.setattr("services.orchestrator.edits.pictures.LIMITS", limits)
    image = file_of(noise(8, 5))
    for edit in (
        {"inpaint": Inpaint(image=image, mask=file_of(upper_half(8, 5)))},
        {"vary": Vary(image=image)},
        {"mask_free_edit": MaskFreeEdit(image=image, iterations=2)},
        {"outpaint": Outpaint(image=image, right_px=3)},
    ):
        previews, result = await watched(studio, **edit)
        assert (previews[-1][2] == result).all()
