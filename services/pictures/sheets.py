"""Sheets: several pictures laid out in rows on white, with or without captions."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

GAP_PX, CAPTION_PX = 4, 14
Picture: TypeAlias = Image.Image | UInt8[np.ndarray, "h w 3"]


def contact_sheet(pictures: Sequence[Picture], *, columns: int) -> Image.Image:
    """Lays out pictures of one size in rows of `columns`."""
    starts = range(0, len(pictures), columns)
    return sheet_of_rows([pictures[start : start + columns] for start in starts])


def sheet_of_rows(
    rows: Sequence[Sequence[Picture]], *, captions: Sequence[Sequence[str]] = ()
) -> Image.Image:
    """Lays rows of pictures, one height a row, out below one another; captions are optional."""
    images = [[_image(picture) for picture in row] for row in rows]
    below = GAP_PX + (CAPTION_PX if captions else 0)
    width = max(sum(image.width + GAP_PX for image in row) for row in images) + GAP_PX
    height = sum(row[0].height + below for row in images) + GAP_PX
    sheet = Image.new("RGB", (width, height), "white")
    draw, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(10), GAP_PX
    for index, row in enumerate(images):
        left = GAP_PX
        for column, image in enumerate(row):
            sheet.paste(image, (left, top))
            if captions:
                place = (left, top + image.height + 1)
                draw.text(place, captions[index][column], fill="black", font=font)
            left += image.width + GAP_PX
        top += row[0].height + below
    return sheet


def _image(picture: Picture) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    return Image.fromarray(np.asarray(picture))
