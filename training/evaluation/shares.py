"""Shares of what came out right, each with its standard error."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many of some answers are yes.

    Attributes:
        right: Answers that are yes.
        total: All answers; at least one.
    """

    right: int
    total: int

    @property
    def value(self) -> float:
        """The share, 0 to 1."""
        return self.right / self.total

    @property
    def standard_error(self) -> float:
        """Of the share as an estimate, binomial; 0 where all answers agree."""
        return float((self.value * (1 - self.value) / self.total) ** 0.5)

    def __str__(self) -> str:
        """Formats it in percent, such as "93.0 ± 1.8%"."""
        return f"{100 * self.value:.1f} ± {100 * self.standard_error:.1f}%"

    def as_json(self) -> dict[str, float | int]:
        """Returns it as plain numbers."""
        return {"share": self.value, "standard_error": self.standard_error, "total": self.total}


def share_of(answers: Iterable[bool]) -> Share:
    """Counts answers.

    Raises:
        ValueError: there are none.
    """
    given = list(answers)
    if not given:
        raise ValueError("expected answers to count, got none")
    return Share(right=sum(given), total=len(given))
