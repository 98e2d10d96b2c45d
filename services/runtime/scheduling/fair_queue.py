"""The queue for slots: ordered by priority, then by start-time fair queueing between callers.

Source: Goyal, Vin and Cheng 1996, "Start-time fair queuing" (order); Choudhury and Hahne 1998,
"Dynamic queue length thresholds" (admission).
"""

import math
from bisect import bisect_right, insort_right
from collections import Counter
from collections.abc import Container
from operator import attrgetter
from typing import Generic, NamedTuple, TypeVar

from services.runtime.wire.caller import Caller, Priority

Item = TypeVar("Item")
AT_ONCE = -math.inf  # start time of an item that was put back


class _Entry(NamedTuple, Generic[Item]):
    """One waiting item.

    Attributes:
        order: Priority, and virtual time at which the item may start.
        finish_time: The start time plus the item's cost.
    """

    item: Item
    caller: Caller
    order: tuple[Priority, float]
    finish_time: float

    @property
    def start_time(self) -> float:
        return self.order[1]


class FairQueue(Generic[Item]):
    """A bounded queue. It has no clock and no thread."""

    def __init__(self, capacity: int) -> None:
        """Starts empty.

        Args:
            capacity: Items that may wait.
        """
        self.capacity = capacity
        self._entries: list[_Entry[Item]] = []  # sorted; equal entries in order of arrival
        self._counts: Counter[Caller] = Counter()
        self._start_time = dict.fromkeys(Priority, 0.0)  # of the item popped last
        self._finish_time: dict[Caller, float] = {}  # of each caller's newest item

    def __len__(self) -> int:
        return len(self._entries)

    def has_room(self, caller: Caller) -> bool:
        """Returns whether a caller may push one more item.

        A caller may hold as many places as are free. So a lone caller gets half of the capacity and
        n callers get 1 / (n + 1) each, and a new caller finds a place while others flood the queue.
        """
        return self._counts[caller] < self.capacity - len(self._entries)

    def holds(self, caller: Caller) -> bool:
        """Returns whether an item of a caller waits."""
        return caller in self._counts

    def push(self, item: Item, caller: Caller, cost: float) -> None:
        """Adds an item.

        Args:
            item: The item.
            caller: Caller of the item.
            cost: Work of the item; only ratios matter.
        """
        start_time = self._next_start_time(caller)
        finish_time = self._finish_time[caller] = start_time + cost
        entry = _Entry(item, caller, (caller.priority, start_time), finish_time)
        insort_right(self._entries, entry, key=attrgetter("order"))
        self._counts[caller] += 1

    def put_back(self, item: Item, caller: Caller) -> None:
        """Adds a popped item again, before all of its priority that were not put back.

        It costs its caller nothing more. It takes a place, and there need not be one.
        """
        entry = _Entry(item, caller, (caller.priority, AT_ONCE), AT_ONCE)
        insort_right(self._entries, entry, key=attrgetter("order"))
        self._counts[caller] += 1

    def remove(self, item: Item) -> bool:
        """Removes an item whose caller is gone; returns whether the queue held it."""
        for index, entry in enumerate(self._entries):
            if entry.item is item:
                self._take(index)
                if self._finish_time.get(entry.caller) == entry.finish_time:
                    self._finish_time[entry.caller] = entry.start_time
                return True
        return False

    def next_caller(self, served: Container[str] = ()) -> Caller | None:
        """Returns the caller of the item that `pop` would return; None if the queue is empty."""
        return self._entries[self._next(served)].caller if self._entries else None

    def pop(self, served: Container[str] = ()) -> Item | None:
        """Removes and returns the next item; None if the queue is empty.

        Items of callers whose ids are in `served` come after the others of their priority.
        """
        if not self._entries:
            return None
        entry = self._take(self._next(served))
        now = self._start_time[entry.caller.priority]
        self._start_time[entry.caller.priority] = max(now, entry.start_time)
        for caller, finish_time in list(self._finish_time.items()):
            if finish_time <= self._start_time[caller.priority]:  # it no longer delays the caller
                del self._finish_time[caller]
        return entry.item

    def items(self) -> list[Item]:
        """Returns all items, in order."""
        return [entry.item for entry in self._entries]

    def split(self, caller: Caller) -> tuple[list[Item], list[Item]]:
        """Returns the items before and after the place of the caller's next item, in order."""
        place = caller.priority, self._next_start_time(caller)
        index = bisect_right(self._entries, place, key=attrgetter("order"))
        items = self.items()
        return items[:index], items[index:]

    def _next(self, served: Container[str]) -> int:
        """Returns the index of the next item; there is one."""
        urgent = self._entries[0].caller.priority
        unserved = {
            caller
            for caller in self._counts
            if caller.priority == urgent and caller.id not in served
        }
        places = (index for index, each in enumerate(self._entries) if each.caller in unserved)
        return next(places, 0) if unserved else 0

    def _next_start_time(self, caller: Caller) -> float:
        return max(self._start_time[caller.priority], self._finish_time.get(caller, 0.0))

    def _take(self, index: int) -> _Entry[Item]:
        entry = self._entries.pop(index)
        self._counts[entry.caller] -= 1
        if not self._counts[entry.caller]:
            del self._counts[entry.caller]
        if not self._entries:  # fairness only concerns callers that wait at the same time
            self._finish_time.clear()
        return entry
