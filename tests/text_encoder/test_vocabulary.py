"""Tests for the vocabulary: T5's conventions, and what does not fit."""

import numpy as np
import pytest

from services.text_encoder.vocabulary import (
    END,
    SENTINELS,
    UNKNOWN,
    Vocabulary,
    train_vocabulary,
)

TEXTS = [
    f"{count} {thing} on a {colour} background"
    for count in ("one", "two", "three")
    for thing in ("foxes", "keys", "suns", "cars")
    for colour in ("red", "green", "blue")
]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return train_vocabulary(TEXTS, 400)


def test_every_text_ends_with_the_end_id(vocabulary: Vocabulary) -> None:
    assert vocabulary.encode("two keys")[-1] == END
    assert vocabulary.encode("") == [END]


def test_words_of_the_training_texts_are_one_piece_each(vocabulary: Vocabulary) -> None:
    assert len(vocabulary.encode("three foxes on a green background")) == 6 + 1


def test_text_comes_back_from_its_ids_in_lower_case(vocabulary: Vocabulary) -> None:
    assert vocabulary.decode(vocabulary.encode("Two KEYS on a red background")) == (
        "two keys on a red background"
    )


def test_a_word_never_seen_is_spelled_out_without_unknowns(vocabulary: Vocabulary) -> None:
    ids = vocabulary.encode("xylophone #7!")

    assert UNKNOWN not in ids
    assert vocabulary.decode(ids) == "xylophone #7!"


def test_a_character_never_seen_is_unknown_and_does_no_harm(vocabulary: Vocabulary) -> None:
    assert UNKNOWN in vocabulary.encode("\u732b")


def test_sentinels_count_down_from_the_top(vocabulary: Vocabulary) -> None:
    assert vocabulary.sentinel(0) == vocabulary.size - 1
    assert vocabulary.sentinel(SENTINELS - 1) == vocabulary.size - SENTINELS
    assert vocabulary.size <= 400
    assert vocabulary.decode([vocabulary.sentinel(2)]) == "<extra_id_2>"
    with pytest.raises(ValueError, match="sentinel must be 0 to 99, got 100"):
        vocabulary.sentinel(SENTINELS)


def test_the_same_texts_train_the_same_vocabulary(vocabulary: Vocabulary) -> None:
    assert train_vocabulary(TEXTS, 400).model == vocabulary.model


def test_rows_are_padded_and_the_mask_marks_text(vocabulary: Vocabulary) -> None:
    ids, mask, cut = vocabulary.encode_batch(["two keys", ""], 6)

    assert cut == 0
    assert ids.shape == mask.shape == (2, 6)
    assert mask.sum(axis=1).tolist() == [3, 1]
    assert not np.any(ids[~mask])


def test_a_text_that_does_not_fit_is_cut_and_counted_and_still_ends(vocabulary: Vocabulary) -> None:
    ids, mask, cut = vocabulary.encode_batch(["two keys", "one two three"], 3)

    assert cut == 1
    assert ids[0].tolist() == vocabulary.encode("two keys")
    assert ids[1].tolist() == [*vocabulary.encode("one two three")[:2], END]
    assert np.all(mask)


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(ValueError, match="no SentencePiece model"):
        Vocabulary(b"not a model")


def test_a_size_without_room_for_letters_is_refused() -> None:
    with pytest.raises(ValueError, match="vocabulary of 150 ids is too small"):
        train_vocabulary(TEXTS, 150)
