"""The canvas: any picture goes onto it and back, and masks never lose a pixel on the way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.orchestrator.edits.letterbox import letterbox_of
from services.orchestrator.edits.masks import (
    composite,
    seam_weights,
    seamless,
    touched_cells,
    unknown_cells,
)
from services.pictures.low_resolution import low_resolution_view

SIDE = 32


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_a_picture_of_the_canvas_size_passes_unchanged_both_ways() -> None:
    picture, letterbox = noise(SIDE, SIDE), letterbox_of(SIDE, SIDE, SIDE)
    assert (letterbox.apply(picture) == picture).all()
    assert (letterbox.undo(picture) == picture).all()
    assert letterbox.inside.all()


@pytest.mark.parametrize(("height", "width"), [(64, 32), (20, 50), (16, 1600), (7, 3), (33, 31)])
def test_the_longer_side_fills_the_canvas_and_the_way_back_has_the_pictures_size(
    height: int, width: int
) -> None:
    letterbox = letterbox_of(height, width, SIDE)
    picture = noise(height, width)
    canvas = letterbox.apply(picture)

    assert canvas.shape == (SIDE, SIDE, 3)
    assert max(letterbox.size) == SIDE
    assert min(letterbox.size) == max(1, round(min(height, width) * SIDE / max(height, width)))
    assert letterbox.inside.sum() == letterbox.size[0] * letterbox.size[1]
    assert letterbox.undo(canvas).shape == picture.shape


def test_beyond_the_picture_its_border_is_repeated() -> None:
    picture = np.full((SIDE // 2, SIDE, 3), 50, np.uint8)
    picture[0] = 200
    canvas = letterbox_of(*picture.shape[:2], SIDE).apply(picture)
    assert (canvas[: SIDE // 4 + 1] == 200).all()
    assert (canvas[SIDE // 4 + 1 :] == 50).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.data())
def test_a_single_masked_pixel_reaches_the_cell_it_lies_in(
    height: int, width: int, data: st.DataObject
) -> None:
    row, column = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    mask = np.zeros((height, width), bool)
    mask[row, column] = True
    letterbox = letterbox_of(height, width, SIDE)
    on_canvas = letterbox.apply_to_mask(mask)

    assert on_canvas.any()
    assert (on_canvas & ~letterbox.inside).sum() == 0
    top, left = letterbox.corner
    middle = (
        top + int((row + 0.5) * letterbox.size[0] / height),
        left + int((column + 0.5) * letterbox.size[1] / width),
    )
    assert on_canvas[middle]
    assert touched_cells(on_canvas, 4)[middle[0] * 4 // SIDE, middle[1] * 4 // SIDE]


def test_tokens_are_unknown_where_masked_or_wholly_outside_the_picture() -> None:
    letterbox = letterbox_of(SIDE // 2 - 2, SIDE, SIDE)  # rows 9 to 22
    mask = np.zeros((SIDE // 2 - 2, SIDE), bool)
    mask[0, 0] = True
    unknown = unknown_cells(letterbox.apply_to_mask(mask), letterbox.inside, 4)

    assert unknown[0].all()
    assert unknown[3].all()
    assert unknown[1:3].sum() == 1
    assert unknown[1, 0]


def test_the_seam_rises_inside_the_mask_only_and_the_canvas_edge_is_none() -> None:
    masked = np.zeros((SIDE, SIDE), bool)
    masked[:, 10:] = True
    weights = seam_weights(masked, 3)

    assert (weights[:, :10] == 0).all()
    np.testing.assert_allclose(weights[5, 10:14], [0.25, 0.5, 0.75, 1.0])
    assert (weights[:, 13:] == 1).all()


def test_a_mask_narrower_than_the_feather_still_shows_the_new() -> None:
    masked = np.zeros((SIDE, SIDE), bool)
    masked[:, 10:14] = True
    assert (seam_weights(masked, 5)[:, 11:13] == 1).all()
    assert (seam_weights(masked, 0) == masked).all()


def test_pixels_outside_the_mask_stay_equal_at_any_size() -> None:
    old = noise(45, 70)
    mask = np.zeros((45, 70), bool)
    mask[10:30, 20:50] = True
    letterbox = letterbox_of(45, 70, SIDE)
    new = np.full((SIDE, SIDE, 3), 255, np.uint8)
    result = seamless(old, new, mask, letterbox, 2)

    assert (result[~mask] == old[~mask]).all()
    assert (result[18:22, 32:38] == 255).all()
    assert (composite(old, old, mask, np.full(mask.shape, 77, np.uint8)) == old).all()


def test_reducing_takes_means() -> None:
    canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
    canvas[::2] = 100
    assert (low_resolution_view(canvas, SIDE // 2) == 50).all()
