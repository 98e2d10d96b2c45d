"""Upkeep of a codebook: what is counted, what is reported, what is replaced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training.tasks.codebook import (
    CodebookUse,
    count_use,
    new_codebook_use,
    revive_codes,
    use_metrics,
)

DECAY = 0.9  # a running mean over 10 steps
CODES = 8


def used(
    codes: list[int], steps: int, use: CodebookUse | None = None, start: int = 0
) -> CodebookUse:
    """The use after steps whose positions get these codes in equal numbers."""
    use = new_codebook_use(CODES) if use is None else use
    ids = jnp.array(codes, jnp.int32).reshape(1, 1, -1)
    for step in range(start, start + steps):
        use = count_use(use, ids, jnp.int32(step), decay=DECAY)
    return use


def metrics(use: CodebookUse, step: int) -> dict[str, float]:
    """Usage and perplexity as numbers."""
    return {k: float(v) for k, v in use_metrics(use, jnp.int32(step), decay=DECAY).items()}


def test_the_running_mean_is_of_shares_of_positions() -> None:
    use = used([0, 0, 0, 5], steps=2)
    mean = 1 - DECAY**2
    np.testing.assert_allclose(use.shares[jnp.array([0, 5, 1])], [0.75 * mean, 0.25 * mean, 0.0])


def test_usage_is_the_share_of_codes_used_within_the_steps_the_mean_looks_back_over() -> None:
    use = used([0, 1], steps=1)
    assert metrics(use, 0)["usage"] == 2 / CODES
    use = used([2], steps=9, use=use, start=1)
    assert metrics(use, 9)["usage"] == 3 / CODES
    use = used([2], steps=1, use=use, start=10)
    assert metrics(use, 10)["usage"] == 1 / CODES


def test_perplexity_is_the_number_of_codes_if_all_in_use_are_used_equally() -> None:
    assert metrics(used([1, 3, 4], steps=3), 2)["perplexity"] == pytest.approx(3, rel=1e-3)
    assert metrics(used([1, 1, 1, 3], steps=1), 0)["perplexity"] == pytest.approx(
        np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))), rel=1e-3
    )


def test_codes_out_of_use_become_encoder_outputs_and_get_time_to_win_a_share() -> None:
    use = used([0], steps=40)  # the credit of the start has faded
    codebook, vectors = jnp.zeros((CODES, 2)), jnp.array([[0.0, 0.0], [3.0, 4.0]])
    ids, key = jnp.zeros(2, jnp.int32), jax.random.key(0)
    use, codebook, count = revive_codes(use, codebook, vectors, ids, key, below=0.03)

    assert int(count) == CODES - 1
    np.testing.assert_array_equal(codebook[0], [0.0, 0.0])
    # The output that lies on its code is not drawn: no code is needed there.
    np.testing.assert_array_equal(codebook[1:], np.tile([3.0, 4.0], (CODES - 1, 1)))
    assert metrics(use, 39)["usage"] == 1 / CODES  # a new code was not used yet
    assert metrics(use, 39)["perplexity"] == pytest.approx(1, rel=1e-3)
    assert int(revive_codes(use, codebook, vectors, ids, key, below=0.03)[2]) == 0
    later = used([0], steps=40, use=use, start=40)
    assert int(revive_codes(later, codebook, vectors, ids, key, below=0.03)[2]) == CODES - 1


def test_outputs_are_drawn_in_proportion_to_their_squared_distance() -> None:
    codes = 4000
    use = new_codebook_use(codes)._replace(credit=jnp.zeros(codes))
    vectors = jnp.array([[1.0], [2.0]])
    ids = jnp.zeros(2, jnp.int32)
    _, codebook, _ = revive_codes(
        use, jnp.zeros((codes, 1)), vectors, ids, jax.random.key(3), below=0.5
    )
    assert float(jnp.mean(codebook == 2.0)) == pytest.approx(0.8, abs=0.03)


def test_nothing_is_replaced_below_a_share_of_0() -> None:
    use = used([0], steps=200)
    arguments = jnp.zeros((CODES, 2)), jnp.ones((2, 2)), jnp.zeros(2, jnp.int32), jax.random.key(0)
    assert int(revive_codes(use, *arguments, below=0.0)[2]) == 0


def test_a_large_batch_makes_no_table_of_outputs_by_codes() -> None:
    outputs, codes = 4096, 512
    program = jax.make_jaxpr(lambda *a: revive_codes(*a, below=0.03))(
        new_codebook_use(codes),
        jnp.zeros((codes, 4)),
        jnp.zeros((outputs, 4)),
        jnp.zeros(outputs, jnp.int32),
        jax.random.key(0),
    )
    sizes = [np.prod(array.aval.shape) for step in program.eqns for array in step.outvars]
    assert max(sizes) < outputs * codes / 8
