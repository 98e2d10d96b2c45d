"""The most operations a second that matrix products of a precision reach on this machine.

No loop of a network is faster than the best product of the same cores, so the share of it that a
loop reaches says how much is left to gain without computing less.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from services.runtime.checkpoints.precision import Precision
from tools.description.arithmetic import product

SIDES = (1024, 1536, 2048, 4096)  # of square matrices
REPEATS = 12  # products of each size and library; the fastest counts
Multiply = Callable[[], object]


def matrix_ceiling(
    sides: Sequence[int] = SIDES, *, precision: Precision = "float32", torch: Any = None
) -> dict[str, float]:
    """Measures the best product of each library.

    Args:
        sides: Of the square matrices tried.
        precision: Of the factors; sums are float32, but for PyTorch's results in bfloat16.
        torch: PyTorch, if it is to take part.

    Returns:
        FLOPs a second, by library.
    """
    best: dict[str, float] = {}
    for side in sides:
        random = np.random.default_rng(side)
        left, right = random.standard_normal((2, side, side), dtype=np.float32)
        for library, multiply in _multiplications(left, right, precision, torch).items():
            rate = product(side, side, side) / _least_s(multiply)
            best[library] = max(best.get(library, 0.0), rate)
    return best


def _multiplications(
    left: np.ndarray, right: np.ndarray, precision: Precision, torch: Any
) -> dict[str, Multiply]:
    multiply = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32))
    on_device = jnp.asarray(left, precision), jnp.asarray(right, precision)
    ways: dict[str, Multiply] = {"jax": lambda: multiply(*on_device).block_until_ready()}
    if precision == "float32":
        ways["numpy"] = partial(np.matmul, left, right)
    if torch is not None:
        dtype = getattr(torch, precision)
        both = (torch.from_numpy(each).to(dtype) for each in (left, right))
        ways["torch"] = partial(torch.matmul, *both)
    return ways


def _least_s(multiply: Multiply) -> float:
    multiply()
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        multiply()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)
