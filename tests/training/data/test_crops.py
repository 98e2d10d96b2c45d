"""Tests for the crops that tokenizers train on."""

import numpy as np

from training.data.crops import busy_crops


def test_a_crop_starts_at_a_token_and_lies_in_its_picture() -> None:
    rows, columns = np.indices((32, 32))
    places = np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)
    random = np.random.default_rng(0)
    seen = set()
    for _ in range(60):
        (crop,) = busy_crops(places[None], 16, step_px=8, random=random)
        assert crop.shape == (16, 16, 3)
        seen.add((int(crop[0, 0, 0]), int(crop[0, 0, 1])))
    assert len(seen) > 1
    assert seen <= {(row, column) for row in (0, 8, 16) for column in (0, 8, 16)}


def test_the_busiest_window_is_preferred() -> None:
    picture = np.zeros((1, 64, 64, 3), np.uint8)
    picture[0, 40:56, 40:56] = np.random.default_rng(1).integers(0, 255, (16, 16, 3))
    random = np.random.default_rng(2)
    shown = [busy_crops(picture, 32, step_px=8, random=random).std() > 0 for _ in range(100)]
    assert np.mean(shown) > 16 / 25  # the share of windows that touch the object


def test_a_crop_as_large_as_the_picture_is_the_picture() -> None:
    picture = np.random.default_rng(3).integers(0, 255, (2, 16, 16, 3), dtype=np.uint8)
    crops = busy_crops(picture, 16, step_px=8, random=np.random.default_rng(0))
    np.testing.assert_array_equal(crops, picture)


def test_a_process_crops_its_rows_as_one_process_crops_the_batch() -> None:
    pictures = np.random.default_rng(3).integers(0, 255, (6, 40, 40, 3), dtype=np.uint8)
    whole = busy_crops(pictures, 16, step_px=4, random=np.random.default_rng(7))
    parts = [
        busy_crops(
            pictures[first : first + 2],
            16,
            step_px=4,
            random=np.random.default_rng(7),
            skipped=first,
        )
        for first in (0, 2, 4)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
