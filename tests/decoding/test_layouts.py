"""Layouts that a compiler chooses for the arrays of a pool, as a TPU's does: here given ones."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental.layout import Format, Layout

from services.decoding import programs
from services.decoding.pool import DecodePool, DecodeRequest
from services.decoding.state import Sampling, fresh_row
from services.nn.compiling import Placement, traced_for
from services.presets import preset

TOKENS = preset("tiny").base.tokens


def reversed_formats(shapes: Any) -> Placement:
    """Returns formats that order the bytes of each array from its last axis to its first."""
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda shape: Format(Layout(tuple(reversed(range(len(shape.shape))))), device), shapes
    )


@pytest.fixture
def turned_pool(
    build_base_pool: Callable[..., DecodePool], monkeypatch: pytest.MonkeyPatch
) -> DecodePool:
    """A pool whose `advance` takes parameters and slots in reversed order, not warmed up."""
    monkeypatch.setattr(programs, "chooses_layouts", lambda: True)
    pool = build_base_pool()
    advance = pool.programs.advance
    parameters, slots = (reversed_formats(shapes) for shapes in advance.shapes[:2])
    turned = replace(advance, takes=(parameters, slots, None, None), gives=slots)
    pool.programs = pool.programs._replace(advance=turned)
    return pool


def test_a_decode_is_the_same_whatever_the_layout_of_its_arrays(
    turned_pool: DecodePool,
    pool: DecodePool,
    make_request: Callable[..., DecodeRequest],
    alone: Callable[..., list[Any]],
) -> None:
    before = jax.tree.leaves(turned_pool.parameters)
    turned_pool.warm_up()
    after = jax.tree.leaves(turned_pool.parameters)

    turned = [each.format.layout.major_to_minor for each in after if each.ndim == 2]
    assert (1, 0) in turned
    assert any(old is new for old, new in zip(before, after, strict=True))  # vectors stay
    sampling = Sampling(steps=6, guidance_scale=2.0, seed=9)
    for negative in (None, 3):
        request = make_request(fresh_row(TOKENS, sampling), negative=negative)
        expected = alone(pool, request)
        for ours, theirs in zip(alone(turned_pool, request), expected, strict=True):
            np.testing.assert_array_equal(ours.tokens, theirs.tokens)


def test_only_a_tpu_s_compiler_chooses_layouts(build_base_pool: Callable[..., DecodePool]) -> None:
    assert all(each is None for each in build_base_pool().programs.advance.takes)
    with traced_for("tpu"):
        parameters, slots, *others = build_base_pool().programs.advance.takes
    assert (parameters.layout, slots.layout, others) == (Layout.AUTO, Layout.AUTO, [None, None])
