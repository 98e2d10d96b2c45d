"""Outpainting: the picture as it was inside a larger one, window by window."""

import tracemalloc
from contextlib import suppress

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from muse.orchestrator.v1.orchestrator_pb2 import Outpaint

from services.orchestrator.edits.windows import windows
from services.runtime.wire.errors import RequestError
from tests.orchestrator.edits.conftest import Studio
from tests.picture_files import file_of, noise


def painted_by(height: int, width: int, outpaint: Outpaint) -> np.ndarray:
    """What is there after all windows, having checked each for what it overlaps."""
    rows = outpaint.top_px + height + outpaint.bottom_px
    columns = outpaint.left_px + width + outpaint.right_px
    there = np.zeros((rows, columns), bool)
    there[
        outpaint.top_px : outpaint.top_px + height, outpaint.left_px : outpaint.left_px + width
    ] = True
    for window in windows(height, width, outpaint):
        view = there[window.slices]
        assert view.shape == (min(height, width),) * 2
        assert 2 * view.sum() >= view.size - min(height, width)
        assert not view.all()
        line = (
            there[window.border, window.slices[1]]
            if window.axis == 0
            else there[window.slices[0], window.border]
        )
        assert line.all()
        view[:] = True
    return there


@settings(max_examples=100, deadline=None)
@given(st.integers(16, 90), st.integers(16, 90), st.tuples(*[st.integers(0, 60)] * 4).filter(any))
def test_windows_cover_everything_and_each_overlaps_half_of_what_is_there(
    height: int, width: int, added: tuple[int, int, int, int]
) -> None:
    left, top, right, bottom = added
    outpaint = Outpaint(left_px=left, top_px=top, right_px=right, bottom_px=bottom)
    with suppress(RequestError):  # too many of them
        assert painted_by(height, width, outpaint).all()


def test_a_square_picture_becomes_four_times_as_wide_in_six_windows() -> None:
    assert len(windows(512, 512, Outpaint(right_px=1536))) == 6
    assert len(windows(512, 512, Outpaint(right_px=256))) == 1
    assert len(windows(512, 512, Outpaint(right_px=1))) == 1


@pytest.mark.parametrize(
    "added",
    [
        {"right_px": 16},
        {"left_px": 7, "top_px": 40},
        {"bottom_px": 90},
        {"left_px": 5, "top_px": 6, "right_px": 7, "bottom_px": 8},
    ],
)
@pytest.mark.parametrize("size", [(32, 32), (20, 50)])
async def test_the_picture_is_returned_as_it_came_inside_the_larger_one(
    studio: Studio, size: tuple[int, int], added: dict[str, int]
) -> None:
    picture, outpaint = noise(*size), Outpaint(**added)
    outpaint.image = file_of(picture)
    result = await studio.pixels(outpaint=outpaint)

    top, left = outpaint.top_px, outpaint.left_px
    assert result.shape[0] == size[0] + top + outpaint.bottom_px
    assert result.shape[1] == size[1] + left + outpaint.right_px
    assert (result[top : top + size[0], left : left + size[1]] == picture).all()
    new = np.ones(result.shape[:2], bool)
    new[top : top + size[0], left : left + size[1]] = False
    assert result[new].mean() > picture.mean() + 20


async def test_each_window_has_a_seed_of_its_own_and_says_which_it_is(studio: Studio) -> None:
    outpaint = Outpaint(image=file_of(noise()), right_px=40)
    events = await studio.house.events(outpaint=outpaint, progress=True)

    seeds = [request.sampling.seed for request in studio.house.stages["base"].asked]
    assert len(set(seeds)) == len(seeds) == 3
    assert seeds[0] == 7
    parts = [
        (event.progress.part, event.progress.parts)
        for event in events
        if event.progress.stage == "base"
    ]
    assert parts == [(number, 3) for number in range(3) for _ in range(5)]
    decodes = events[-2].image.decodes
    assert [decode.stage for decode in decodes] == ["base", "superres"] * 3


async def test_what_is_known_in_a_window_is_known_to_the_stages(studio: Studio) -> None:
    await studio.images(outpaint=Outpaint(image=file_of(noise()), right_px=16))

    (base,), (superres,) = (studio.house.stages[name].asked for name in ("base", "superres"))
    assert list(base.resume.known) == [1, 0] * 2
    assert list(superres.resume.known) == [1, 1, 0, 0] * 4


async def test_memory_grows_with_the_results_pixels_alone(studio: Studio) -> None:
    image, used = file_of(noise(64, 64)), []
    for right_px in (256, 1024):
        tracemalloc.start()
        await studio.images(outpaint=Outpaint(image=image, right_px=right_px))
        used.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    added = 64 * (1024 - 256)
    assert used[1] - used[0] < 40 * added  # bytes a pixel: RGB, the file, both some times over


TOO_LARGE: list[tuple[str, dict[str, int], str]] = [
    ("outpaint", {"right_px": 16_384}, "sides of at most 16384"),
    ("outpaint", {"right_px": 9_000, "bottom_px": 9_000}, "at most 16777216 pixels"),
    ("outpaint.right_px", {"right_px": 1_100}, "at most 64 windows of 32 pixels"),
    ("outpaint.left_px", {"left_px": 500, "right_px": 600}, "at most 64 windows"),
]


@pytest.mark.parametrize(("field", "wrong", "said"), TOO_LARGE)
async def test_what_would_be_too_large_is_refused_by_its_field_before_any_stage_is_called(
    studio: Studio, field: str, wrong: dict[str, int], said: str
) -> None:
    message = Outpaint(image=file_of(noise()), **wrong)
    refusal = await studio.house.refusal(outpaint=message)

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in refusal.violations] == [field]
    assert said in refusal.message
    assert studio.house.calls() == 0
    assert await studio.house.works()
