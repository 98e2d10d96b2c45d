"""The line of those who wait for a slot: the urgent first, then each caller its fair share.

Source: Goyal, Vin and Cheng 1996, "Start-time fair queuing" (who is next); Choudhury and Hahne
1998, "Dynamic queue length thresholds" (who finds room).
"""

from bisect import bisect_right, insort_right
from collections import Counter
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.runtime.wire.caller import Claim, Priority

Waiting = TypeVar("Waiting")


@dataclass(frozen=True, kw_only=True)
class _Place(Generic[Waiting]):
    """One who waits.

    Attributes:
        begin: The work its caller was promised before, as far as it still counts.
        end: The same with its own.
    """

    who: Waiting
    claim: Claim
    begin: float
    end: float

    @property
    def order(self) -> tuple[Priority, float]:
        return self.claim.priority, self.begin


class WaitingLine(Generic[Waiting]):
    """A line with a number of places. It knows no clock and no thread."""

    def __init__(self, places: int) -> None:
        """Opens an empty line.

        Args:
            places: How many may wait.
        """
        self.places = places
        self._line: list[_Place[Waiting]] = []  # whose turn is next first, equals as they came
        self._held: Counter[Claim] = Counter()
        self._begun = dict.fromkeys(Priority, 0.0)  # of who was seated last
        self._promised: dict[Claim, float] = {}  # the end of each claim's newest request

    def __len__(self) -> int:
        return len(self._line)

    def room_for(self, claim: Claim) -> bool:
        """Whether one more may wait: a claim may hold as many places as it leaves free.

        So a lone caller gets half of them, n callers an (n + 1)th each, and who comes next finds a
        place while others flood the line.
        """
        return self._held[claim] < self.places - len(self._line)

    def join(self, who: Waiting, claim: Claim, cost: float) -> None:
        """Puts somebody into the line.

        Args:
            who: Who waits.
            claim: On whose behalf.
            cost: The work it asks for; only ratios count.
        """
        begin = self._begin(claim)
        end = self._promised[claim] = begin + cost
        place = _Place(who=who, claim=claim, begin=begin, end=end)
        insort_right(self._line, place, key=lambda each: each.order)
        self._held[claim] += 1

    def leave(self, who: Waiting) -> bool:
        """Takes somebody out who gives up; returns whether it was there."""
        for index, place in enumerate(self._line):
            if place.who is who:
                self._take_out(index)
                if self._promised.get(place.claim) == place.end:
                    self._promised[place.claim] = place.begin
                return True
        return False

    def next(self) -> Waiting | None:
        """Takes out whose turn it is; None if nobody waits."""
        if not self._line:
            return None
        place = self._take_out(0)
        self._begun[place.claim.priority] = place.begin
        for claim, end in list(self._promised.items()):  # what no longer counts
            if end <= self._begun[claim.priority]:
                del self._promised[claim]
        return place.who

    def everybody(self) -> list[Waiting]:
        """Returns all who wait, in order."""
        return [place.who for place in self._line]

    def around(self, claim: Claim) -> tuple[list[Waiting], list[Waiting]]:
        """Returns who would be seated before and who after a newcomer, in order."""
        own = claim.priority, self._begin(claim)
        split = bisect_right(self._line, own, key=lambda each: each.order)
        everybody = self.everybody()
        return everybody[:split], everybody[split:]

    def _begin(self, claim: Claim) -> float:
        return max(self._begun[claim.priority], self._promised.get(claim, 0.0))

    def _take_out(self, index: int) -> _Place[Waiting]:
        place = self._line.pop(index)
        self._held -= Counter([place.claim])  # keeps no claim that holds nothing
        if not self._line:  # where nobody waits, nobody owes anything
            self._promised.clear()
        return place
