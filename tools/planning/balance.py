"""Which replica a call goes to, chosen in O(log n) where services.orchestrator looks at all."""

import heapq
from collections.abc import Iterable


class Balance:
    """One orchestrator's view of a stage's replicas: it knows its own calls alone.

    The rule is that of `services.orchestrator.replicas.ReplicaSet`: the least outstanding work, of
    equal ones the one whose turn is longest ago, first those that had no turn yet. A heap holds
    what each of the others had outstanding at some time; entries that a later one has replaced are
    thrown away when they come up.
    """

    def __init__(self, order: Iterable[int]) -> None:
        """Begins with nothing outstanding and all replicas up.

        Args:
            order: The replicas, in the order in which the first calls go to them.
        """
        self._unused = iter(order)
        self._outstanding: dict[int, int] = {}  # of those that had a turn
        self._chosen: dict[int, int] = {}  # turn of each
        self._down: set[int] = set()
        self._heap: list[tuple[int, int, int]] = []
        self._turn = 0

    def choose(self, work: int) -> int | None:
        """Returns the replica that a call goes to, and counts its work; None if none is up."""
        self._turn += 1
        for index in self._unused:
            if index not in self._chosen and index not in self._down:
                self._outstanding[index], self._chosen[index] = work, self._turn
                heapq.heappush(self._heap, (work, self._turn, index))
                return index
        heap = self._heap
        while heap:
            outstanding, chosen, index = heap[0]
            current = outstanding == self._outstanding[index] and chosen == self._chosen[index]
            if not current or index in self._down:
                heapq.heappop(heap)
                continue
            self._outstanding[index], self._chosen[index] = outstanding + work, self._turn
            heapq.heapreplace(heap, (outstanding + work, self._turn, index))
            return index
        return None

    def end(self, index: int, work: int) -> None:
        """Takes note that a call has ended."""
        self._outstanding[index] -= work
        self._push(index)

    def lose(self, index: int) -> None:
        """Sends nothing to a replica any more."""
        self._down.add(index)

    def gain(self, index: int) -> None:
        """Sends calls to a replica again, which begins anew."""
        self._down.discard(index)
        self._chosen[index] = 0
        self._outstanding.setdefault(index, 0)
        self._push(index)

    def _push(self, index: int) -> None:
        if index in self._down:
            return
        heapq.heappush(self._heap, (self._outstanding[index], self._chosen[index], index))
        if len(self._heap) > 64 + 4 * len(self._chosen):  # mostly replaced ones: keep the others
            self._heap = [
                (outstanding, self._chosen[each], each)
                for each, outstanding in self._outstanding.items()
                if each not in self._down
            ]
            heapq.heapify(self._heap)
