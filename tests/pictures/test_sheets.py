"""Sheets: every picture stands in its row, and captions have room of their own."""

import numpy as np
from PIL import Image

from services.pictures.sheets import CAPTION_PX, GAP_PX, contact_sheet, sheet_of_rows


def test_rows_may_differ_in_width() -> None:
    wide, square = Image.new("RGB", (20, 10), "red"), Image.new("RGB", (10, 10), "blue")
    sheet = sheet_of_rows([[square, square], [square, wide]])

    assert sheet.size == (30 + 3 * GAP_PX, 20 + 3 * GAP_PX)
    assert sheet.getpixel((sheet.width - GAP_PX - 1, sheet.height - GAP_PX - 1)) == (255, 0, 0)
    assert sheet.getpixel((sheet.width - GAP_PX - 1, GAP_PX)) == (255, 255, 255)


def test_arrays_fill_rows_of_equal_length_in_order() -> None:
    shades = [np.full((6, 8, 3), 40 * index, np.uint8) for index in range(3)]
    sheet = np.asarray(contact_sheet(shades, columns=2))

    assert sheet.shape == (2 * 6 + 3 * GAP_PX, 2 * 8 + 3 * GAP_PX, 3)
    below, right = 6 + GAP_PX, 8 + GAP_PX
    corners = [(0, 0), (0, right), (below, 0), (below, right)]
    assert [sheet[GAP_PX + row, GAP_PX + column, 0] for row, column in corners] == [0, 40, 80, 255]


def test_captions_stand_below_their_pictures() -> None:
    red = Image.new("RGB", (60, 10), "red")
    sheet = np.asarray(sheet_of_rows([[red, red]], captions=[["", "step 3"]]))

    assert sheet.shape[0] == 10 + CAPTION_PX + 2 * GAP_PX
    below = sheet[GAP_PX + 10 :]
    assert (below[:, : GAP_PX + 60] == 255).all()
    assert (below[:, 60 + 2 * GAP_PX :] < 128).any()
