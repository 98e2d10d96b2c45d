"""Policy of dynamic batching: when a batch starts, and which requests it takes.

Plain data without a thread, a device or a clock. `Batcher` applies it to the device thread, a
simulation applies it to virtual time.
"""

from itertools import islice
from math import inf
from typing import Generic, TypeVar

Item = TypeVar("Item")


class BatchQueue(Generic[Item]):
    """Requests that wait for their batch, in order of arrival; they are hashed by identity."""

    def __init__(self, max_batch_size: int, max_wait_s: float) -> None:
        """Starts empty.

        Args:
            max_batch_size: Requests in a batch.
            max_wait_s: Seconds a request waits for others while the device is free.
        """
        self._max_batch_size, self._max_wait_s = max_batch_size, max_wait_s
        self._arrivals_s: dict[Item, float] = {}

    def __len__(self) -> int:
        return len(self._arrivals_s)

    @property
    def full(self) -> bool:
        """Whether the requests fill a batch."""
        return len(self._arrivals_s) >= self._max_batch_size

    @property
    def start_s(self) -> float:
        """Time when a free device starts the next batch if no request comes or goes before.

        That is at once if the batch is full, else when its first request has waited; never if no
        request waits.
        """
        if len(self._arrivals_s) >= self._max_batch_size:
            return -inf
        return next(iter(self._arrivals_s.values()), inf) + self._max_wait_s

    def push(self, item: Item, arrival_s: float) -> None:
        """Adds a request."""
        self._arrivals_s[item] = arrival_s

    def remove(self, item: Item) -> None:
        """Removes a request whose caller is gone, if it still waits."""
        self._arrivals_s.pop(item, None)

    def pop_batch(self) -> list[Item]:
        """Removes and returns the requests of the next batch."""
        batch = list(islice(self._arrivals_s, self._max_batch_size))
        for item in batch:
            del self._arrivals_s[item]
        return batch
