"""The text projection starts where all directions of the embeddings are about equally strong."""

import numpy as np
import pytest

from training.tasks.whitening import whitening_kernel


@pytest.mark.parametrize("hidden", [8, 5, 12])
def test_strong_and_weak_directions_come_out_alike(hidden: int) -> None:
    random = np.random.default_rng(0)
    mixing = np.linalg.qr(random.normal(size=(8, 8)))[0]
    vectors = random.normal(size=(5000, 8)) * np.geomspace(1.0, 0.3, 8) @ mixing
    kernel = whitening_kernel(vectors, hidden, seed=1)
    assert kernel.shape == (8, hidden)
    power = np.sort(np.linalg.eigvalsh(np.cov((vectors @ kernel).T)))[-min(hidden, 8) :]
    before = np.linalg.eigvalsh(np.cov(vectors.T))
    assert before.max() / before.min() > 8
    assert power.max() / power.min() < 1.5


def test_a_direction_that_is_nearly_absent_is_not_blown_up() -> None:
    vectors = np.random.default_rng(0).normal(size=(1000, 2)) * np.array([1.0, 1e-6])
    mapped = vectors @ whitening_kernel(vectors, 2, seed=0)
    assert mapped[:, 0].std() == pytest.approx(1, rel=0.05)
    assert mapped[:, 1].std() < 1e-3
