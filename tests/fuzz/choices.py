"""Decisions that are read from bytes, so that whoever changes the bytes changes the decisions."""

from collections.abc import Sequence
from typing import TypeVar

Option = TypeVar("Option")


class Choices:
    """Reads decisions from the start of some bytes; where they end, every decision is the first."""

    def __init__(self, content: bytes) -> None:
        """Reads nothing yet."""
        self._content, self._position = content, 0

    def below(self, limit: int) -> int:
        """Returns a number from 0 to less than `limit`, of one byte or as many as it needs."""
        length = max(1, ((limit - 1).bit_length() + 7) // 8)
        return int.from_bytes(self.take(length)) % limit

    def pick(self, options: Sequence[Option]) -> Option:
        """Returns one of the options."""
        return options[self.below(len(options))]

    def take(self, length: int) -> bytes:
        """Returns the next bytes, fewer at the end."""
        start, self._position = self._position, min(self._position + length, len(self._content))
        return self._content[start : self._position]

    def rest(self) -> bytes:
        """Returns all bytes that are left."""
        return self.take(len(self._content))
