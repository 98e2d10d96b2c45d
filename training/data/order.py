"""The order in which examples come: a function of a seed, so that a resumed run goes on exactly."""

from collections.abc import Callable
from typing import TypeVar

import grain
import numpy as np

MAX_ATTEMPTS = 1000  # examples tried for one place
T = TypeVar("T")


class ExampleOrder:
    """Shuffles examples anew each epoch, every example once in it, without end.

    Nothing is held in memory for it: Grain computes which example stands at a place.

    A place whose example cannot be used takes one drawn at random by the seed, the place and the
    number of the attempt. So it depends on the data alone, and not on what was read before; the
    next example in the order would be seen twice in a batch.
    """

    def __init__(self, examples: int, seed: int) -> None:
        """Lays out the order.

        Args:
            examples: How many there are; at least 1.
            seed: Of the shuffles and draws.
        """
        self._examples, self._seed = examples, seed
        self._shuffled = grain.MapDataset.range(examples).seed(seed).shuffle().repeat()

    def at(self, place: int, attempt: int = 0) -> int:
        """Returns the example of a place: the first choice, or that of a later attempt."""
        if attempt == 0:
            return int(self._shuffled[place])
        random = np.random.default_rng([self._seed, place, attempt])
        return int(random.integers(self._examples))

    def first_usable(self, place: int, read: Callable[[int], T | None]) -> T:
        """Returns what is read of the first usable example of a place.

        Args:
            place: In the endless order.
            read: Reads an example; None if it cannot be used.

        Raises:
            ValueError: of `MAX_ATTEMPTS` examples none can be used.
        """
        for attempt in range(MAX_ATTEMPTS):
            found = read(self.at(place, attempt))
            if found is not None:
                return found
        raise ValueError(
            f"none of {MAX_ATTEMPTS} examples drawn one after another could be used, of "
            f"{self._examples}: loosen the filters, or correct the data"
        )
