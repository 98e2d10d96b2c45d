"""Reads usable captioned pictures: decoded, filtered, cropped to a square; counts the others."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from services.pictures.errors import PictureError
from services.pictures.files import PictureLimits, declared_size, read_picture
from training.data.captioned.errors import FilteredExample, UnusableExample
from training.data.captioned.files import PictureFiles
from training.data.captioned.filters import Filters
from training.data.captioned.log import ExampleLog

# Larger than what a request may send: photographs of 48 megapixels are common. 192 MiB of RGB.
LIMITS = PictureLimits(min_side_px=16, max_side_px=65_536, max_pixels=2**26)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ExampleReader:
    """Examples by their number; each method returns None for one that cannot be used.

    Attributes:
        files: Where the examples lie.
        filters: Examples to leave out.
        side_px: Side of the pictures.
        log: Counts and names what cannot be used.
    """

    files: PictureFiles
    filters: Filters
    side_px: int
    log: ExampleLog

    def __len__(self) -> int:
        """Returns the number of examples, the unusable ones too."""
        return len(self.files)

    def image(self, index: int) -> UInt8[np.ndarray, "S S 3"] | None:
        """Reads a picture, whatever its caption."""
        return self._counted(index, self._image)

    def caption(self, index: int) -> str | None:
        """Reads a caption, whatever its picture."""
        return self._counted(index, self._caption)

    def captioned(self, index: int) -> tuple[UInt8[np.ndarray, "S S 3"], str] | None:
        """Reads a picture and its caption."""

        def both(index: int) -> tuple[UInt8[np.ndarray, "S S 3"], str]:
            caption = self._caption(index)  # first, as it takes less time
            return self._image(index), caption

        return self._counted(index, both)

    def _counted(self, index: int, read: Callable[[int], T]) -> T | None:
        try:
            found = read(index)
        except UnusableExample as error:
            self.log.skip(*self.files.name(index), str(error))
        except FilteredExample as error:
            self.log.count_filtered(str(error))
        else:
            self.log.count_usable()
            return found
        return None

    def _caption(self, index: int) -> str:
        caption = self.files.caption(index)
        self.filters.check_caption(caption)
        return caption

    def _image(self, index: int) -> UInt8[np.ndarray, "S S 3"]:
        content = self.files.picture(index)
        try:
            self.filters.check_size(*declared_size(content, LIMITS))
            return central_square(read_picture(content, LIMITS).rgb, self.side_px)
        except PictureError as error:
            raise UnusableExample(f"the picture cannot be used: {error}") from error


def central_square(rgb: UInt8[np.ndarray, "h w 3"], side_px: int) -> UInt8[np.ndarray, "S S 3"]:
    """Crops the square in the middle of a picture and scales it."""
    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(rgb[top : top + side, left : left + side])
    return np.asarray(square.resize((side_px, side_px), Image.Resampling.LANCZOS))
