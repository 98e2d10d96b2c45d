"""Composing pictures in several processes, for a device that learns faster than one core draws."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from jaxtyping import UInt8

Captioned = tuple[UInt8[np.ndarray, "B h w 3"], list[str]]
CaptionedImages = Callable[[int], Captioned]
AHEAD = 2  # results for each worker that may wait: a block of pictures takes some 100 MB

_images: CaptionedImages


def compose(
    images: CaptionedImages, steps: Sequence[int], *, workers: int
) -> Iterator[tuple[int, Captioned]]:
    """Yields the pictures and captions of each step, in order.

    Args:
        images: Gives those of a step; it is sent to each process once, so it must be picklable.
        steps: Which to compose.
        workers: How many processes compose; they are spawned, as forking after JAX is not safe.

    Raises:
        ValueError: workers is below 1.
    """
    if workers < 1:
        raise ValueError(f"expected at least 1 worker, got {workers}")
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_receive, initargs=(images,)
    ) as pool:
        waiting: deque[tuple[int, Future[Captioned]]] = deque()
        for step in steps:
            waiting.append((step, pool.submit(_compose, step)))
            if len(waiting) > AHEAD * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()


def _receive(images: CaptionedImages) -> None:
    global _images
    _images = images


def _compose(step: int) -> Captioned:
    return _images(step)
