"""Tests for cutting spans out of texts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.text_encoder.vocabulary import END, PADDING, Vocabulary, train_vocabulary
from training.tasks.span_corruption import corrupt, noise_mask, span_batch

TEXTS = ["a fox above a key on a green background", "two suns in flat cartoon style"] * 20


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return train_vocabulary(TEXTS, 400)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(2, 200), seed=st.integers(0, 2**31))
def test_fifteen_in_a_hundred_tokens_are_cut_in_spans_of_three(length: int, seed: int) -> None:
    mask = noise_mask(length, np.random.default_rng(seed))

    cut = max(1, round(0.15 * length))
    assert mask.shape == (length,)
    assert mask.sum() == cut
    spans = int(mask[0]) + int(np.sum(mask[1:] & ~mask[:-1]))
    assert spans == max(1, round(cut / 3))


def test_every_place_of_a_short_text_is_cut_about_equally_often() -> None:
    random = np.random.default_rng(0)

    share = np.mean([noise_mask(12, random) for _ in range(4000)], axis=0)

    # Two tokens in a row of twelve: the ends lie in one of eleven places, the others in two.
    np.testing.assert_allclose(share[[0, -1]], 1 / 11, atol=0.02)
    np.testing.assert_allclose(share[1:-1], 2 / 11, atol=0.03)


def test_inputs_and_targets_together_give_the_text_back(vocabulary: Vocabulary) -> None:
    ids = vocabulary.encode(TEXTS[0])[:-1]
    mask = np.isin(np.arange(len(ids)), [0, 4, 5])

    inputs, targets = corrupt(ids, mask, vocabulary)

    assert inputs[-1] == targets[-1] == END
    assert vocabulary.decode(inputs) == "<extra_id_0> fox above a <extra_id_1> a green background"
    assert vocabulary.decode(targets) == "<extra_id_0> a <extra_id_1> key on <extra_id_2>"


def test_a_batch_is_padded_and_long_texts_are_cut_short(vocabulary: Vocabulary) -> None:
    batch = span_batch([TEXTS[0] * 9, TEXTS[1]], vocabulary, 20, np.random.default_rng(0))

    assert batch.inputs.shape[1] == 20
    assert batch.targets.shape == (2, 16)
    assert np.all((batch.inputs == END).sum(axis=1) == 1)
    assert batch.inputs[1, -1] == PADDING


def test_a_text_of_one_token_is_refused(vocabulary: Vocabulary) -> None:
    with pytest.raises(ValueError, match="at least two tokens, got 'fox'"):
        span_batch(["fox"], vocabulary, 20, np.random.default_rng(0))
