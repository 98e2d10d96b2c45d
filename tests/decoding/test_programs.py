"""The programs of base and superres: slots, and export to every platform."""

from itertools import pairwise

import jax
import numpy as np
import pytest
from flax import nnx

from services.base.model import BaseTransformer
from services.decoding.pool import DecodePool, Job
from services.decoding.state import Kind, Row, Sampling, fresh_row, state_of
from services.presets import preset
from services.superres.model import SuperresTransformer

TINY = preset("tiny")


def shape(*sizes: int, dtype: type = np.float32) -> jax.ShapeDtypeStruct:
    """Of one input."""
    return jax.ShapeDtypeStruct(sizes, dtype)


def base_pool(slots: int = 4, group: int = 1) -> DecodePool:
    """A pool of an untrained base transformer."""
    config = TINY.base
    return DecodePool(
        BaseTransformer(config, rngs=nnx.Rngs(0)),
        inputs=(
            shape(1, config.text_length, config.text_hidden),
            shape(1, config.text_length, dtype=np.bool_),
        ),
        tokens=config.tokens,
        mask_id=config.vocabulary,
        slots=slots,
        group=group,
    )


def superres_pool() -> DecodePool:
    """A pool of an untrained super-resolution transformer."""
    config = TINY.superres
    return DecodePool(
        SuperresTransformer(config, rngs=nnx.Rngs(0)),
        inputs=(
            shape(1, config.low_tokens, dtype=np.int32),
            shape(1, config.text_length, config.text_hidden),
            shape(1, config.text_length, dtype=np.bool_),
        ),
        tokens=config.tokens,
        mask_id=config.vocabulary,
        slots=2,
        group=2,
    )


def job(row: Row) -> Job:
    """A decode for a fixed text."""
    text = np.random.default_rng(0).normal(size=(TINY.base.text_length, TINY.base.text_hidden))
    mask = np.arange(TINY.base.text_length) < 7
    return Job(inputs=(text.astype(np.float32), mask), opposite=None, row=row)


@pytest.fixture(scope="module")
def pool() -> DecodePool:
    warm = base_pool()
    warm.warm_up()
    return warm


@pytest.mark.parametrize("build", [base_pool, superres_pool])
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_every_program_exports_for_every_platform(build: type, platform: str) -> None:
    for program, shapes in build().programs().values():
        exported = jax.export.export(program, platforms=[platform])(*shapes)
        assert exported.platforms == (platform,)


def test_more_decodes_than_slots_are_refused(pool: DecodePool) -> None:
    row = fresh_row(TINY.base.tokens, Sampling(steps=2, guidance=0.0))

    with pytest.raises(ValueError, match="5 decodes do not fit into 4 slots"):
        pool.decode([job(row)] * 5)


def test_a_pool_that_failed_decodes_the_next_job_as_ever(pool: DecodePool) -> None:
    row = fresh_row(TINY.base.tokens, Sampling(steps=6, guidance=2.0, seed=9))
    before = pool.decode([job(row)])[0].tokens

    def fail(progress: object) -> None:
        raise OSError("the listener has gone")

    listened = Job(inputs=job(row).inputs, opposite=None, row=row, on_step=fail)
    with pytest.raises(OSError, match="listener has gone"):
        pool.decode([listened, job(row)])

    assert np.array_equal(pool.decode([job(row)])[0].tokens, before)


def test_a_mask_free_edit_draws_its_share_of_the_open_tokens_at_every_step(
    pool: DecodePool,
) -> None:
    start = np.arange(TINY.base.tokens) % TINY.base.vocabulary
    fixed = np.arange(TINY.base.tokens) < 6
    row = Row(
        tokens=start,
        known=fixed,
        sampling=Sampling(steps=40, guidance=4.0, top_k=3),
        unknown=2,
        kind=Kind.RESAMPLE,
    )
    states: list[np.ndarray] = [start]
    watched = Job(
        inputs=job(row).inputs,
        opposite=None,
        row=row,
        on_step=lambda progress: states.append(progress.tokens),
    )

    pool.decode([watched])

    assert len(states) == 41
    for before, after in pairwise(states):
        assert np.sum(before != after) <= 2
    assert np.array_equal(states[-1][:6], start[:6])
    assert np.any(states[-1] != start)
    assert states[-1].max() < TINY.base.vocabulary


def test_an_image_of_which_everything_is_known_comes_back_unchanged(pool: DecodePool) -> None:
    tokens = np.full(TINY.base.tokens, 3)
    row = Row(
        tokens=tokens,
        known=np.ones(TINY.base.tokens, bool),
        sampling=Sampling(steps=4, guidance=1.0),
        unknown=0,
    )

    assert np.array_equal(pool.decode([job(row)])[0].tokens, tokens)


def test_a_state_that_contradicts_its_steps_is_refused() -> None:
    row = Row(
        tokens=np.zeros(16, np.int32),
        known=np.zeros(16, bool),
        sampling=Sampling(steps=4, guidance=0.0),
        unknown=16,
        step=2,
    )

    with pytest.raises(ValueError, match="resume with the tokens and steps"):
        state_of([row], mask_id=32)
