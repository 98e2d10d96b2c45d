"""What a decode comes to does not depend on its slot, its company, or when it joined."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from services.decoding.pool import DecodePool, Job, Progress
from services.decoding.state import Kind, Row, Sampling
from services.presets import preset
from services.runtime.scheduling.scheduler import SlotScheduler
from services.runtime.scheduling.slots import Failed, RequestState
from services.runtime.wire.timing import Timed

TINY = preset("tiny")
TOKENS, VOCABULARY = TINY.base.tokens, TINY.base.vocabulary
MIXES = 1000
JOBS = 40


def random_row(random: np.random.Generator) -> Row:
    """A decode with any knobs: whole, partly known, resumable later, or a mask-free edit."""
    known = random.random(TOKENS) < random.choice([0.0, 0.0, 0.5, 0.95])
    kind = Kind.RESAMPLE if random.random() < 0.2 and not known.all() else Kind.CONFIDENT
    still_open = int((~known).sum())
    sampling = Sampling(
        steps=int(random.integers(1, 20)),
        guidance=float(random.choice([0.0, 0.0, 1.5, 7.0])),
        first_guidance=float(random.choice([0.0, 0.0, 3.0])),
        temperature=float(random.choice([0.0, 0.7, 1.0])),
        confidence_noise=float(random.choice([0.0, 4.5])),
        top_k=int(random.choice([0, 0, 1, 5, VOCABULARY + 3])),
        seed=int(random.integers(2**64, dtype=np.uint64)),
    )
    return Row(
        tokens=random.integers(VOCABULARY, size=TOKENS),
        known=known,
        sampling=sampling,
        unknown=int(random.integers(1, still_open + 1)) if kind is Kind.RESAMPLE else still_open,
        kind=kind,
    )


@pytest.fixture(scope="module")
def jobs(make_job: Callable[..., Job]) -> list[Job]:
    random = np.random.default_rng(5)
    return [
        make_job(
            random_row(random),
            text=int(random.integers(9)),
            negative=int(random.integers(9)) if random.random() < 0.3 else None,
        )
        for _ in range(JOBS)
    ]


class Listener:
    """Keeps what is told of a request."""

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
    jobs: list[Job],
    expected: list[list[Progress]],
) -> None:
    """Runs some jobs that come, are watched and are given up at random; compares every result."""
    scheduler = SlotScheduler[Job, Progress](pool, max_queued=2 * JOBS)
    arrivals = random.choice(len(jobs), size=random.integers(2, 9)).tolist()
    running: list[tuple[int, Listener, RequestState[Job, Progress]]] = []
    while arrivals or scheduler.busy:
        while arrivals and (not scheduler.busy or random.random() < 0.4):
            index, listener = arrivals.pop(), Listener()
            state = scheduler.submit(jobs[index], listener, stream=random.random() < 0.2)
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
        for told in listener.steps:
            assert np.array_equal(told.tokens, alone[told.step].tokens)


def test_a_decode_is_the_same_alone_in_any_slot_in_any_mix_and_joining_late(
    pool: DecodePool, jobs: list[Job], alone: Callable[..., list[Progress]]
) -> None:
    expected = [alone(pool, job) for job in jobs]
    assert len({tuple(states[-1].tokens.tolist()) for states in expected}) > JOBS * 0.9

    for seed in range(MIXES):
        check_mix(np.random.default_rng(seed), pool, jobs, expected)


def test_rows_do_not_depend_on_their_company_with_int8_weights_either(
    build_base_pool: Callable[..., DecodePool],
    jobs: list[Job],
    alone: Callable[..., list[Any]],
) -> None:
    quantized = build_base_pool(slots=4, weights="int8")
    quantized.warm_up()
    expected = [alone(quantized, job) for job in jobs]

    for seed in range(MIXES // 10):
        check_mix(np.random.default_rng(seed), quantized, jobs, expected)


def test_a_decode_handed_out_after_any_step_goes_on_in_another_pool(
    build_base_pool: Callable[..., DecodePool],
    pool: DecodePool,
    jobs: list[Job],
    alone: Callable[..., list[Progress]],
) -> None:
    other = build_base_pool(slots=1)
    other.warm_up()
    for job in jobs[::4]:
        states = alone(pool, job)
        for halfway in states:
            row = Row(
                tokens=halfway.tokens,
                known=halfway.known,
                sampling=job.row.sampling,
                unknown=job.row.unknown,
                step=halfway.step,
                kind=job.row.kind,
            )
            resumed = Job(inputs=job.inputs, opposite=job.opposite, row=row)
            assert np.array_equal(alone(other, resumed)[-1].tokens, states[-1].tokens)


def test_nothing_compiles_after_the_warm_up_whatever_is_asked(
    build_base_pool: Callable[..., DecodePool],
    make_job: Callable[..., Job],
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
            make_job(random_row(random), text=number, negative=number % 5 or None)
            for number in range(30)
        ]
        expected = [alone(fresh, job) for job in asked]
        for _ in range(20):
            check_mix(random, fresh, asked, expected)
        fresh.admit(1, asked[0])
        fresh.reset()
        assert np.array_equal(alone(fresh, asked[0])[-1].tokens, expected[0][-1].tokens)
