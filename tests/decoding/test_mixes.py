"""What a decode comes to does not depend on its slot, its company, or when it joined."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from services.decoding.pool import DecodePool, DecodeRequest
from services.decoding.slots import Progress
from services.decoding.state import Kind, Row, Sampling
from services.presets import preset
from services.runtime.scheduling.scheduler import SlotScheduler
from services.runtime.scheduling.slots import Failed, RequestState
from services.runtime.wire.caller import Caller
from services.runtime.wire.timing import Timed

TINY = preset("tiny")
TOKENS, VOCABULARY = TINY.base.tokens, TINY.base.vocabulary
MIXES = 250
REQUESTS = 40


def random_row(random: np.random.Generator) -> Row:
    """Returns a decode of a whole or partly known image, or a mask-free edit, at random."""
    known = random.random(TOKENS) < random.choice([0.0, 0.0, 0.5, 0.95])
    kind = Kind.MASK_FREE_EDIT if random.random() < 0.2 and not known.all() else Kind.CONFIDENT
    still_open = int((~known).sum())
    sampling = Sampling(
        steps=int(random.integers(1, 20)),
        guidance_scale=float(random.choice([0.0, 0.0, 1.5, 7.0])),
        guidance_scale_start=float(random.choice([0.0, 0.0, 3.0])),
        temperature=float(random.choice([0.0, 0.7, 1.0])),
        choice_temperature=float(random.choice([0.0, 4.5])),
        top_k=int(random.choice([0, 0, 1, 5, VOCABULARY + 3])),
        seed=int(random.integers(2**64, dtype=np.uint64)),
    )
    return Row(
        tokens=random.integers(VOCABULARY, size=TOKENS),
        known=known,
        sampling=sampling,
        unknown=int(random.integers(1, still_open + 1))
        if kind is Kind.MASK_FREE_EDIT
        else still_open,
        kind=kind,
    )


@pytest.fixture(scope="module")
def requests(make_request: Callable[..., DecodeRequest]) -> list[DecodeRequest]:
    random = np.random.default_rng(5)
    return [
        make_request(
            random_row(random),
            text=int(random.integers(9)),
            negative=int(random.integers(9)) if random.random() < 0.3 else None,
        )
        for _ in range(REQUESTS)
    ]


class Listener:
    """Collects the events of a request."""

    def __init__(self) -> None:
        self.steps: list[Progress] = []
        self.result: Timed[Progress] | None = None

    def __call__(self, event: Progress | Timed[Progress] | Failed) -> None:
        assert not isinstance(event, Failed)
        if isinstance(event, Timed):
            self.result = event
        else:
            self.steps.append(event)


def check_mix(
    random: np.random.Generator,
    pool: DecodePool,
    requests: list[DecodeRequest],
    expected: list[list[Progress]],
) -> None:
    """Runs requests that join, stream and are abandoned at random; compares every result."""
    scheduler = SlotScheduler[DecodeRequest, Progress](pool, max_queued=2 * REQUESTS)
    arrivals = random.choice(len(requests), size=random.integers(2, 9)).tolist()
    running: list[tuple[int, Listener, RequestState[DecodeRequest, Progress]]] = []
    while arrivals or scheduler.busy:
        while arrivals and (not scheduler.busy or random.random() < 0.4):
            index, listener = arrivals.pop(), Listener()
            state = scheduler.submit(
                requests[index],
                listener,
                stream=random.random() < 0.2,
                caller=Caller(id=str(random.integers(3))),
            )
            running.append((index, listener, state))
        if random.random() < 0.05:
            scheduler.cancel(running[random.integers(len(running))][2])
        scheduler.tick()
    for index, listener, state in running:
        alone = expected[index]
        if not state.cancelled:
            assert listener.result is not None
        if listener.result is not None:
            assert np.array_equal(listener.result.result.tokens, alone[-1].tokens)
        for state in listener.steps:
            assert np.array_equal(state.tokens, alone[state.step].tokens)


def test_a_decode_is_the_same_alone_in_any_slot_in_any_mix_and_joining_late(
    pool: DecodePool, requests: list[DecodeRequest], alone: Callable[..., list[Progress]]
) -> None:
    expected = [alone(pool, request) for request in requests]
    assert len({tuple(states[-1].tokens.tolist()) for states in expected}) > REQUESTS * 0.9

    for seed in range(MIXES):
        check_mix(np.random.default_rng(seed), pool, requests, expected)


def test_rows_do_not_depend_on_their_company_with_int8_weights_either(
    build_base_pool: Callable[..., DecodePool],
    requests: list[DecodeRequest],
    alone: Callable[..., list[Any]],
) -> None:
    quantized = build_base_pool(slots=4, weights="int8")
    quantized.warm_up()
    expected = [alone(quantized, request) for request in requests]

    for seed in range(MIXES // 10):
        check_mix(np.random.default_rng(seed), quantized, requests, expected)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_decodes_of_one_call_of_the_network_do_not_depend_on_their_company_either(
    build_base_pool: Callable[..., DecodePool],
    pool: DecodePool,
    requests: list[DecodeRequest],
    alone: Callable[..., list[Any]],
    dtype: Any,
) -> None:
    filled = build_base_pool(slots=5, rows_at_once=3, dtype=dtype)
    filled.warm_up()
    expected = [alone(filled, request) for request in requests]
    if dtype == np.float32:  # the shape of a product changes at most last bits
        same = [
            np.array_equal(states[-1].tokens, alone(pool, request)[-1].tokens)
            for states, request in zip(expected, requests, strict=True)
        ]
        assert sum(same) >= 0.9 * REQUESTS

    for seed in range(MIXES // 10):
        check_mix(np.random.default_rng(seed), filled, requests, expected)


def test_a_decode_handed_out_after_any_step_goes_on_in_another_pool(
    build_base_pool: Callable[..., DecodePool],
    pool: DecodePool,
    requests: list[DecodeRequest],
    alone: Callable[..., list[Progress]],
) -> None:
    other = build_base_pool(slots=1)
    other.warm_up()
    for request in requests[::4]:
        states = alone(pool, request)
        for halfway in states:
            row = Row(
                tokens=halfway.tokens,
                known=halfway.known,
                sampling=request.row.sampling,
                unknown=request.row.unknown,
                step=halfway.step,
                kind=request.row.kind,
            )
            resumed = DecodeRequest(
                inputs=request.inputs, negative_inputs=request.negative_inputs, row=row
            )
            assert np.array_equal(alone(other, resumed)[-1].tokens, states[-1].tokens)


def test_nothing_compiles_after_the_warm_up_whatever_is_asked(
    build_base_pool: Callable[..., DecodePool],
    make_request: Callable[..., DecodeRequest],
    alone: Callable[..., list[Any]],
    nothing_compiles: Callable[[], AbstractContextManager[None]],
) -> None:
    fresh = build_base_pool(slots=3)
    with pytest.raises(AssertionError), nothing_compiles():
        fresh.warm_up()
    with pytest.raises(AssertionError), nothing_compiles():
        jnp.ones(7) @ jax.jit(lambda vector: vector * 3)(jnp.ones(7))

    random = np.random.default_rng(11)
    with nothing_compiles():
        asked = [
            make_request(random_row(random), text=number, negative=number % 5 or None)
            for number in range(30)
        ]
        expected = [alone(fresh, request) for request in asked]
        for _ in range(20):
            check_mix(random, fresh, asked, expected)
        fresh.admit(1, asked[0])
        fresh.reset()
        assert np.array_equal(alone(fresh, asked[0])[-1].tokens, expected[0][-1].tokens)
