"""Filters of captioned pictures by size, aspect, length of the caption and words in it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from training.data.captioned.errors import DataError, FilteredExample


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What an example must be to be used; None filters nothing.

    Attributes:
        min_side_px: Least pixels of the shorter side.
        max_aspect: Greatest ratio of the longer side to the shorter.
        min_caption_chars: Least characters of the caption.
        max_caption_chars: Most characters of the caption.
        blocklist: UTF-8 file of words or phrases, one a line; a caption that has one of them as
            whole words, in either case, is left out.
    """

    min_side_px: int | None = None
    max_aspect: float | None = None
    min_caption_chars: int | None = None
    max_caption_chars: int | None = None
    blocklist: Path | None = None

    def __post_init__(self) -> None:
        for name in ("min_side_px", "max_aspect", "min_caption_chars", "max_caption_chars"):
            value = getattr(self, name)
            if value is not None and not value >= 1:
                raise DataError(f"{name}: expected 1 or more, got {value}")
        if (self.min_caption_chars or 1) > (self.max_caption_chars or float("inf")):
            raise DataError(
                f"min_caption_chars: expected at most max_caption_chars, {self.max_caption_chars}, "
                f"got {self.min_caption_chars}"
            )

    @cached_property
    def phrases(self) -> tuple[str, ...]:
        """The blocklist's phrases.

        Raises:
            DataError: the file is missing, no UTF-8 or empty.
        """
        if self.blocklist is None:
            return ()
        try:
            lines = self.blocklist.read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"blocklist: {self.blocklist} cannot be read: {error}") from error
        found = tuple(line.strip() for line in lines if line.strip())
        if not found:
            raise DataError(f"blocklist: expected a phrase a line in {self.blocklist}, got none")
        return found

    @cached_property
    def _blocked(self) -> re.Pattern[str] | None:
        if not self.phrases:
            return None
        phrases = "|".join(map(re.escape, self.phrases))
        return re.compile(rf"(?<!\w)(?:{phrases})(?!\w)", re.IGNORECASE)

    def check_size(self, height: int, width: int) -> None:
        """Checks the size of a picture in pixels.

        Raises:
            FilteredExample: it is left out.
        """
        shorter, longer = sorted((height, width))
        if self.min_side_px is not None and shorter < self.min_side_px:
            raise FilteredExample("min_side_px")
        if self.max_aspect is not None and longer > shorter * self.max_aspect:
            raise FilteredExample("max_aspect")

    def check_caption(self, text: str) -> None:
        """Checks a caption.

        Raises:
            FilteredExample: it is left out.
        """
        if self.min_caption_chars is not None and len(text) < self.min_caption_chars:
            raise FilteredExample("min_caption_chars")
        if self.max_caption_chars is not None and len(text) > self.max_caption_chars:
            raise FilteredExample("max_caption_chars")
        if self._blocked is not None and self._blocked.search(text):
            raise FilteredExample("blocklist")

    def description(self) -> Mapping[str, float | list[str]]:
        """Returns the filters that are set, as JSON; a blocklist by its phrases."""
        numbers = {
            name: float(value)
            for name, value in vars(self).items()
            if isinstance(value, int | float)
        }
        return {**numbers, **({"blocklist": list(self.phrases)} if self.phrases else {})}
