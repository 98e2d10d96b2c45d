"""Batches of captioned pictures from files: every one a function of (seed, step)."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8

from training.data.captioned.reading import ExampleReader
from training.data.captions import Caption
from training.data.order import ExampleOrder

MAX_THREADS = 16  # that read and decode the pictures of a batch; Pillow decodes without the GIL
T = TypeVar("T")


class CaptionedBatches:
    """Shuffled anew each epoch, every usable example once in it."""

    def __init__(
        self,
        reader: ExampleReader,
        *,
        batch_size: int,
        seed: int,
        rows: slice = slice(None),
    ) -> None:
        """Lays out the order.

        Args:
            reader: The examples, in their high resolution.
            batch_size: Examples a step, of all processes together.
            seed: Of the order.
            rows: Those of each batch that this process reads; which examples they are does not
                depend on how many processes there are.
        """
        self._reader, self._batch_size, self._rows = reader, batch_size, rows
        self._order = ExampleOrder(len(reader), seed)

    def captioned(self, step: int) -> tuple[UInt8[np.ndarray, "B h w 3"], list[str]]:
        """Returns this process's high-resolution pictures of a step and their captions."""
        examples = self._examples(step, self._reader.captioned)
        return np.stack([image for image, _ in examples]), [text for _, text in examples]

    def images(self, step: int) -> UInt8[np.ndarray, "B h w 3"]:
        """Returns this process's high-resolution pictures of a step, captioned or not."""
        return np.stack(self._examples(step, self._reader.image))

    def _examples(self, step: int, read: Callable[[int], T | None]) -> list[T]:
        places = range(step * self._batch_size, (step + 1) * self._batch_size)[self._rows]
        with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as threads:
            return list(threads.map(lambda at: self._order.first_usable(at, read), places))

    def captions(self, seed: int) -> Iterator[Caption]:
        """Yields captions without end, shuffled anew each epoch; nothing labels their nouns."""
        order = ExampleOrder(len(self._reader), seed)
        for place in count():
            yield Caption(text=order.first_usable(place, self._reader.caption))

    @property
    def description(self) -> Mapping[str, object]:
        """Returns what a resumed run must share with the run it resumes."""
        return {
            "examples": len(self._reader),
            "contents": self._reader.files.digest(),
            "filters": self._reader.filters.description(),
        }

    @property
    def label_classes(self) -> Mapping[str, int]:
        """Returns no labels: what these captions' nouns say is not known."""
        return {}

    @property
    def subjects(self) -> Mapping[str, Sequence[str]]:
        """Returns no subjects: what these captions name is not known."""
        return {}
