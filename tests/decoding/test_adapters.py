"""Adapters of a pool: what they compute, and that a decode is the same in any company of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.typing import DTypeLike

from services.base.config import BaseConfig
from services.base.model import BaseTransformer
from services.decoding.adapters import NO_ADAPTERS, adapter_scales, factors_side_by_side
from services.decoding.pool import DecodePool, DecodeRequest
from services.decoding.state import Sampling, fresh_row
from services.nn.low_rank import with_adapter_scale, with_adapters
from services.nn.parameters import parameters_of, with_parameters
from services.presets import preset
from services.runtime.checkpoints.adapters import Adapter
from services.superres.config import SuperresConfig
from services.superres.model import SuperresTransformer
from tests.decoding.conftest import base_parameters
from tests.decoding.test_mixes import check_mix, random_row
from tests.drawn_adapters import drawn_adapter

TOKENS = preset("tiny").base.tokens
BASE = BaseConfig(
    grid=4, vocabulary=31, text_hidden=8, text_length=4, hidden=16, layers=1, heads=2, mlp=32
)
SUPERRES = SuperresConfig(
    **{**vars(BASE), "grid": 8}, low_grid=4, low_vocabulary=31, low_layers=1, block=4
)
MIXES = 40


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Adapter]:
    """Adapters of the tiny base, of three ranks; "owl" lacks its MLP, and "wild" overflows."""
    folder, parameters = tmp_path_factory.mktemp("adapters"), base_parameters()
    without_mlp = {name: value for name, value in parameters.items() if ".mlp." not in name}
    return {
        "fox": drawn_adapter(folder / "fox", parameters, rank=2, seed=1),
        "owl": drawn_adapter(folder / "owl", without_mlp, rank=3, seed=2),
        "wild": drawn_adapter(folder / "wild", parameters, rank=1, seed=3, spread=1e38),
    }


@pytest.fixture(scope="module")
def adapted_pool(
    build_base_pool: Callable[..., DecodePool], adapters: dict[str, Adapter]
) -> DecodePool:
    """A pool of four slots with all of them, warmed up."""
    pool = build_base_pool(adapters=adapters)
    pool.warm_up()
    return pool


def request_of(make_request: Callable[..., DecodeRequest], **adapters: float) -> DecodeRequest:
    """Returns a guided decode of a whole image with some adapters."""
    row = fresh_row(TOKENS, Sampling(steps=6, guidance_scale=2.0, seed=9))
    return replace(make_request(row), adapters=adapters)


def test_factors_lie_side_by_side_and_the_scale_picks_those_of_a_decode(
    adapters: dict[str, Adapter],
) -> None:
    factors, scales = factors_side_by_side(adapters), adapter_scales(adapters)

    assert scales.rank == 6
    for name in ("blocks.cross.query.kernel", "blocks.mlp.expand.kernel"):
        a, b = factors[name]
        kernel = np.zeros((*a.shape[:-1], b.shape[-1]), np.float32)
        weights = {"owl": 2.0, "fox": -0.5}
        expected = sum(
            weight * (adapters[each].adapted(name, kernel) if name in adapters[each].factors else 0)
            for each, weight in weights.items()
        )
        np.testing.assert_allclose((a * scales.of(weights)) @ b, expected, atol=1e-6)
    assert scales.of({"fox": 0.5}).tolist() == [0.5, 0.5, 0, 0, 0, 0]  # alpha is the rank
    assert not scales.of({}).any()
    with pytest.raises(KeyError, match="cat"):
        scales.of({"cat": 1.0})


def test_without_adapters_there_is_nothing_to_pick() -> None:
    assert adapter_scales({}) == NO_ADAPTERS
    assert factors_side_by_side({}) == {}
    assert NO_ADAPTERS.of({}).shape == (0,)


def logits(config: BaseConfig | SuperresConfig, model: Any) -> np.ndarray:
    """Returns the logits of two half masked rows, the second without its text."""
    random = np.random.default_rng(3)
    tokens = random.integers(0, 31, (2, config.tokens)).astype(np.int32)
    tokens[:, ::2] = config.vocabulary
    text = random.normal(size=(2, 4, 8)).astype(np.float32)
    inputs = [jnp.asarray(text), jnp.ones((2, 4), bool)]
    if isinstance(config, SuperresConfig):
        inputs.insert(0, jnp.asarray(random.integers(0, 31, (2, 16)), jnp.int32))
    graph, parameters = nnx.split(model)

    def compute(parameters: nnx.State) -> jax.Array:
        built: Any = nnx.merge(graph, parameters)
        return built.logits(jnp.asarray(tokens), built.context(*inputs), jnp.array([True, False]))

    return np.asarray(jax.jit(compute)(parameters))


@pytest.mark.parametrize(
    ("config", "dtype"), [(BASE, jnp.float32), (SUPERRES, jnp.float32), (BASE, jnp.bfloat16)]
)
def test_two_adapters_give_the_logits_of_a_checkpoint_that_they_are_merged_into(
    config: BaseConfig | SuperresConfig, dtype: DTypeLike, tmp_path: Path
) -> None:
    kind: Any = SuperresTransformer if isinstance(config, SuperresConfig) else BaseTransformer
    drawn = parameters_of(kind(config, rngs=nnx.Rngs(0)))
    parameters = {name: np.asarray(value) for name, value in drawn.items()}
    pair = {
        name: drawn_adapter(tmp_path / name, parameters, rank=rank, seed=rank)
        for name, rank in (("fox", 2), ("owl", 3))
    }
    merged = dict(parameters)
    for adapter in pair.values():
        merged |= {name: adapter.adapted(name, merged[name]) for name in adapter.factors}

    def plain(parameters: dict[str, np.ndarray], dtype: DTypeLike) -> nnx.Module:
        return with_parameters(
            lambda: kind(config, rngs=nnx.Rngs(0), dtype=dtype), parameters, dtype=dtype
        )

    model = with_adapters(plain(parameters, dtype), factors_side_by_side(pair), dtype=dtype)
    graph, state = nnx.split(model)
    scale = jnp.asarray(adapter_scales(pair).of({"fox": 1.0, "owl": 1.0}))
    served = logits(config, nnx.merge(graph, with_adapter_scale(state, scale)))

    exact = logits(config, plain(merged, jnp.float32))
    unadapted = logits(config, plain(parameters, dtype))
    idle = logits(config, model)  # the scale of an adapter is 0 until it is set
    assert np.abs(exact - unadapted).max() > 0.1
    if dtype == jnp.float32:
        np.testing.assert_allclose(served, exact, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(idle, unadapted, atol=1e-6)
    else:  # as far from the exact logits as a checkpoint that was merged and rounded
        rounding = np.abs(logits(config, plain(merged, dtype)) - exact).mean()
        assert np.abs(served - exact).mean() < 1.5 * rounding
        assert np.abs(idle - unadapted).mean() < rounding


def test_each_adapter_and_each_weight_decodes_other_tokens(
    adapted_pool: DecodePool, make_request: Callable[..., DecodeRequest], alone: Callable[..., Any]
) -> None:
    chosen: list[dict[str, float]] = [{}, {"fox": 1}, {"fox": 3}, {"owl": 1}, {"fox": 1, "owl": 1}]
    decoded = [
        tuple(alone(adapted_pool, request_of(make_request, **each))[-1].tokens) for each in chosen
    ]
    assert len(set(decoded)) == len(chosen)


def test_a_decode_without_adapters_is_that_of_a_pool_without_adapters(
    adapted_pool: DecodePool,
    pool: DecodePool,
    make_request: Callable[..., DecodeRequest],
    alone: Callable[..., Any],
) -> None:
    random = np.random.default_rng(8)
    for number in range(8):
        request = make_request(random_row(random), text=number, negative=number % 3 or None)
        idle = replace(request, adapters={"fox": 0.0})
        expected = alone(pool, request)[-1].tokens
        assert np.array_equal(alone(adapted_pool, request)[-1].tokens, expected)
        assert np.array_equal(alone(adapted_pool, idle)[-1].tokens, expected)


@pytest.mark.parametrize(("weights", "rows_at_once"), [("full", 1), ("int8", 1), ("full", 3)])
def test_a_decode_is_the_same_alone_and_beside_other_adapters(
    build_base_pool: Callable[..., DecodePool],
    adapters: dict[str, Adapter],
    make_request: Callable[..., DecodeRequest],
    alone: Callable[..., list[Any]],
    weights: str,
    rows_at_once: int,
) -> None:
    pool = build_base_pool(weights=weights, adapters=adapters, rows_at_once=rows_at_once)
    pool.warm_up()
    random = np.random.default_rng(5)
    choices: list[dict[str, float]] = [{}, {"fox": 1}, {"owl": -2}, {"owl": 0.3, "fox": 1}]
    requests = [
        replace(
            make_request(
                random_row(random), text=number, negative=number if number % 3 == 0 else None
            ),
            adapters=choices[number % 4],
        )
        for number in range(20)
    ]
    expected = [alone(pool, request) for request in requests]
    unadapted = [alone(pool, replace(request, adapters={})) for request in requests]
    changed = sum(
        not np.array_equal(one[-1].tokens, other[-1].tokens)
        for one, other in zip(expected, unadapted, strict=True)
    )
    assert changed > 10  # of the 15 that have adapters

    for seed in range(MIXES):
        check_mix(np.random.default_rng(seed), pool, requests, expected)


def test_an_adapter_that_is_not_there_is_refused_and_the_slots_stay_as_they_are(
    adapted_pool: DecodePool, make_request: Callable[..., DecodeRequest], alone: Callable[..., Any]
) -> None:
    before = alone(adapted_pool, request_of(make_request))[-1].tokens
    with pytest.raises(KeyError, match="cat"):
        adapted_pool.admit(1, request_of(make_request, cat=1.0))
    assert np.array_equal(alone(adapted_pool, request_of(make_request))[-1].tokens, before)


def test_without_adapters_the_programs_have_none(
    build_base_pool: Callable[..., DecodePool], adapters: dict[str, Adapter]
) -> None:
    def paths(loaded: dict[str, Adapter]) -> list[str]:
        pool = build_base_pool(adapters=loaded)
        flat, _ = jax.tree_util.tree_flatten_with_path(pool.parameters)
        return [jax.tree_util.keystr(path) for path, _ in flat]

    assert not any("adapter" in path for path in paths({}))
    assert sum("adapter" in path for path in paths(adapters)) > 20
