"""Which replica a call goes to, chosen in O(log n) where services.orchestrator looks at all."""

import heapq
from collections.abc import Sequence


class Balance:
    """One orchestrator's view of a stage's replicas: it knows its own calls alone.

    The rule is that of `services.orchestrator.replicas.ReplicaSet`: the least outstanding work, of
    equal ones the one whose turn is longest ago. A heap holds what each replica had outstanding at
    some time; entries that a later one has replaced are thrown away when they come up.
    """

    def __init__(self, order: Sequence[int]) -> None:
        """Begins with nothing outstanding and all replicas up.

        Args:
            order: The replicas, in the order in which the first calls go to them.
        """
        replicas = len(order)
        self._outstanding, self._chosen = [0] * replicas, [0] * replicas
        self._up = [True] * replicas
        for place, index in enumerate(order):
            self._chosen[index] = place - replicas
        self._heap = [(0, self._chosen[index], index) for index in order]
        self._turn = 0

    def choose(self, work: int) -> int | None:
        """Returns the replica that a call goes to, and counts its work; None if none is up."""
        heap = self._heap
        while heap:
            outstanding, chosen, index = heap[0]
            current = outstanding == self._outstanding[index] and chosen == self._chosen[index]
            if not current or not self._up[index]:
                heapq.heappop(heap)
                continue
            self._turn += 1
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
        self._up[index] = False

    def gain(self, index: int) -> None:
        """Sends calls to a replica again, which begins anew."""
        self._up[index], self._chosen[index] = True, 0
        self._push(index)

    def _push(self, index: int) -> None:
        if not self._up[index]:
            return
        heapq.heappush(self._heap, (self._outstanding[index], self._chosen[index], index))
        if len(self._heap) > 64 + 4 * len(self._up):  # mostly replaced ones: keep the others
            self._heap = [
                (self._outstanding[each], self._chosen[each], each)
                for each, up in enumerate(self._up)
                if up
            ]
            heapq.heapify(self._heap)
