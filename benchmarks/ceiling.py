"""The most float32 operations a second that matrix products reach on this machine.

No loop of a network is faster than the best product of the same cores, so the share of it that a
loop reaches says how much is left to gain without computing less.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from tools.description.arithmetic import product

SIDES = (1024, 1536, 2048)  # of square matrices: 4 to 16 MiB each
REPEATS = 12  # products of each size and library; the fastest counts
Multiply = Callable[[], object]


def matrix_ceiling(sides: Sequence[int] = SIDES, *, torch: Any = None) -> dict[str, float]:
    """Measures the best product of each library.

    Args:
        sides: Of the square matrices tried.
        torch: PyTorch, if it is to take part.

    Returns:
        FLOPs a second, by library.
    """
    best: dict[str, float] = {}
    for side in sides:
        random = np.random.default_rng(side)
        left, right = random.standard_normal((2, side, side), dtype=np.float32)
        for library, multiply in _multiplications(left, right, torch).items():
            rate = product(side, side, side) / _least_s(multiply)
            best[library] = max(best.get(library, 0.0), rate)
    return best


def _multiplications(left: np.ndarray, right: np.ndarray, torch: Any) -> dict[str, Multiply]:
    multiply = jax.jit(lambda a, b: a @ b)
    on_device = jax.device_put(left), jax.device_put(right)
    ways: dict[str, Multiply] = {
        "numpy": partial(np.matmul, left, right),
        "jax": lambda: multiply(*on_device).block_until_ready(),
    }
    if torch is not None:
        ways["torch"] = partial(torch.matmul, torch.from_numpy(left), torch.from_numpy(right))
    return ways


def _least_s(multiply: Multiply) -> float:
    multiply()
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        multiply()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)
