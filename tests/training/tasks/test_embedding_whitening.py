"""The text projection starts where what tells words apart is strong."""

import numpy as np
import pytest

from training.tasks.embedding_whitening import whitening_init

WORDS, EACH, WIDTH = 12, 400, 8


def embeddings(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Words that differ a little, in texts that change them a lot along two directions."""
    random = np.random.default_rng(seed)
    mixing = np.linalg.qr(random.normal(size=(WIDTH, WIDTH)))[0]
    words = np.repeat(np.arange(WORDS), EACH)
    of_word = random.normal(size=(WORDS, WIDTH))
    of_text = random.normal(size=(len(words), WIDTH)) * ([6.0, 6.0] + [0.5] * (WIDTH - 2))
    return (of_word[words] + of_text + 5.0) @ mixing, words


def telling(vectors: np.ndarray, words: np.ndarray) -> float:
    """How far words lie apart, over how far the embeddings of one word do."""
    means = np.stack([vectors[words == word].mean(axis=0) for word in range(WORDS)])
    within = ((vectors - means[words]) ** 2).sum(axis=1).mean()
    return float(((means - means.mean(axis=0)) ** 2).sum(axis=1).mean() / within)


@pytest.mark.parametrize("hidden", [8, 12])
def test_words_are_told_apart_better_than_before(hidden: int) -> None:
    vectors, words = embeddings()
    mapped = vectors @ whitening_init(vectors, words, hidden, seed=1)
    assert mapped.shape == (len(words), hidden)
    assert telling(mapped, words) > 10 * telling(vectors, words)


def test_embeddings_of_one_word_vary_alike_in_all_directions() -> None:
    vectors, words = embeddings()
    mapped = vectors @ whitening_init(vectors, words, WIDTH, seed=1)
    within = np.concatenate([mapped[words == w] - mapped[words == w].mean(0) for w in range(WORDS)])
    power = np.sort(np.linalg.eigvalsh(np.cov(within.T)))
    # But the weakest: the one that all words share is held small as well.
    assert power[1:].max() / power[1:].min() < 3  # 144 before


def test_a_direction_that_is_nearly_absent_is_not_blown_up() -> None:
    vectors, words = embeddings()
    vectors = np.concatenate(
        [vectors, 1e-6 * np.random.default_rng(2).normal(size=(len(words), 1))], 1
    )
    mapped = vectors @ whitening_init(vectors, words, WIDTH + 1, seed=0)
    assert mapped[:, -1].std() < 1e-3
