"""What a GPU's fused kernel is asked for is what a CPU computes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from services.nn import attention
from services.nn.attention import attend, attend_cfg_batch

ROWS, POSITIONS, HEADS, WIDTH, KEYS, SHARED = 3, 7, 2, 8, 12, 5
LENGTH = jnp.array([12, 6, 9])


def drawn(seed: int, rows: int, count: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (rows, count, HEADS, WIDTH))


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """Has attention call JAX's fused attention, computed without cuDNN, and keeps each call."""
    plain, asked = jax.nn.dot_product_attention, []

    def kernel(*arrays: jax.Array, implementation: str, **others: Any) -> jax.Array:
        asked.append({"implementation": implementation, "rows": len(arrays[0])})
        return plain(*arrays, implementation="xla", **others)

    def begin() -> list[dict[str, Any]]:
        monkeypatch.setattr(attention, "_has_fused_kernel", lambda queries: True)
        monkeypatch.setattr(jax.nn, "dot_product_attention", kernel)
        return asked

    return begin


@pytest.mark.parametrize("length", [None, LENGTH], ids=["all", "some"])
def test_a_fused_kernel_is_asked_to_attend_to_the_same_positions(
    as_on_a_gpu: Callable[[], list[dict[str, Any]]], length: jax.Array | None
) -> None:
    look = partial(attend, drawn(0, ROWS, POSITIONS), drawn(1, ROWS, KEYS), drawn(2, ROWS, KEYS))
    here = look(length)
    asked = as_on_a_gpu()
    np.testing.assert_allclose(look(length), here, atol=1e-5)
    assert asked == [{"implementation": "cudnn", "rows": ROWS}]


def test_a_fused_kernel_is_called_once_for_a_cfg_batch(
    as_on_a_gpu: Callable[[], list[dict[str, Any]]],
) -> None:
    queries, keys, values = (
        drawn(0, 2 * ROWS, POSITIONS),
        drawn(1, ROWS, KEYS),
        drawn(2, ROWS, KEYS),
    )
    here = attend_cfg_batch(queries, keys, values, LENGTH, shared_context_length=SHARED)
    cond, uncond = jnp.split(queries, 2)
    nearest = attend(uncond, keys[:, :SHARED], values[:, :SHARED])
    np.testing.assert_allclose(here[:ROWS], attend(cond, keys, values, LENGTH), atol=1e-6)
    np.testing.assert_allclose(here[ROWS:], nearest, atol=1e-6)

    asked = as_on_a_gpu()
    there = attend_cfg_batch(queries, keys, values, LENGTH, shared_context_length=SHARED)
    np.testing.assert_allclose(there, here, atol=1e-5)
    assert asked == [{"implementation": "cudnn", "rows": 2 * ROWS}]
