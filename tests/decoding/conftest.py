"""Pools of tiny untrained transformers, and decodes to run on them."""

from collections.abc import Callable, Mapping

import jax
import numpy as np
import pytest
from flax import nnx
from jax.typing import DTypeLike

from services.base.model import BaseTransformer
from services.decoding.adapters import adapter_scales, factors_side_by_side
from services.decoding.pool import DecodePool, DecodeRequest
from services.decoding.slots import Progress
from services.decoding.state import Row
from services.nn.low_rank import with_adapters
from services.nn.parameters import parameters_of
from services.nn.quantization import with_weights
from services.presets import preset
from services.runtime.checkpoints.adapters import Adapter
from services.runtime.checkpoints.precision import Weights

TINY = preset("tiny")
BuildPool = Callable[..., DecodePool]
MakeRequest = Callable[..., DecodeRequest]
Alone = Callable[[DecodePool, DecodeRequest], list[Progress]]


def base_parameters() -> dict[str, np.ndarray]:
    """Returns the parameters of an untrained base transformer, always the same."""
    drawn = parameters_of(BaseTransformer(TINY.base, rngs=nnx.Rngs(0)))
    return {name: np.asarray(value) for name, value in drawn.items()}


@pytest.fixture(scope="session")
def build_base_pool() -> BuildPool:
    """Builds a pool of an untrained base transformer, not warmed up."""

    def build(
        slots: int = 4,
        weights: Weights = "full",
        dtype: DTypeLike = np.float32,
        adapters: Mapping[str, Adapter] | None = None,
        rows_at_once: int = 1,
    ) -> DecodePool:
        config = TINY.base
        model = with_weights(
            lambda: BaseTransformer(config, rngs=nnx.Rngs(0), dtype=dtype),
            base_parameters(),
            dtype=dtype,
            weights=weights,
        )
        return DecodePool(
            with_adapters(model, factors_side_by_side(adapters or {}), dtype=dtype),
            inputs=(
                jax.ShapeDtypeStruct((1, config.text_length, config.text_hidden), np.float32),
                jax.ShapeDtypeStruct((1, config.text_length), np.bool_),
            ),
            tokens=config.tokens,
            mask_id=config.vocabulary,
            slots=slots,
            adapters=adapter_scales(adapters or {}),
            rows_at_once=rows_at_once,
        )

    return build


@pytest.fixture(scope="session")
def pool(build_base_pool: BuildPool) -> DecodePool:
    """A pool of four slots, warmed up; a test leaves its slots free."""
    warm = build_base_pool()
    warm.warm_up()
    return warm


def prompt(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs of the base transformer's context: a made-up text of its own length."""
    random = np.random.default_rng(number)
    text = random.normal(size=(TINY.base.text_length, TINY.base.text_hidden)).astype(np.float32)
    return text, np.arange(TINY.base.text_length) < 1 + number % TINY.base.text_length


@pytest.fixture(scope="session")
def make_request() -> MakeRequest:
    """Makes a decode for one of many made-up prompts."""

    def make(row: Row, *, text: int = 6, negative: int | None = None) -> DecodeRequest:
        negative_inputs = None if negative is None else prompt(negative)
        return DecodeRequest(inputs=prompt(text), negative_inputs=negative_inputs, row=row)

    return make


@pytest.fixture(scope="session")
def alone() -> Alone:
    """Runs a decode by itself in slot 0 and returns its state after each of its steps."""

    def run(pool: DecodePool, request: DecodeRequest) -> list[Progress]:
        pool.admit(0, request)
        states = [pool.advance(0, [0])[0]]
        while states[-1].step < states[-1].total:
            states.append(pool.advance(1, [0])[0])
        return states

    return run
