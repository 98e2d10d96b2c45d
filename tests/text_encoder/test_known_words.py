"""The words of an encoder's training captions, and what is not among them."""

from pathlib import Path

import pytest

from services.runtime.checkpoints.errors import CheckpointMismatch
from services.text_encoder.known_words import MAX_WORDS, KnownWords, known_words


def test_words_are_compared_without_case_and_punctuation() -> None:
    known = known_words(["a robot's arm, on blue"], {"objects": ["Lady Beetle"]})

    assert known is not None
    assert known.unknown(["A ROBOT\u2019S lady, beetle!", "On a table"]) == ("table",)
    assert known.unknown(["a robot's ARM", ""]) == ()


def test_a_list_is_read_as_it_was_saved(tmp_path: Path) -> None:
    known = known_words(["a fox"], {"objects": ["fox"]})
    assert known is not None
    known.save(tmp_path / "words.json")

    assert KnownWords.from_file(tmp_path / "words.json") == known


def test_without_subjects_the_warning_says_how_many_words_are_known() -> None:
    known = known_words(["a fox"], {})

    assert known is not None
    assert "knows 2 words, which its known_words.json lists" in known.warning(["owl"])


def test_captions_of_open_english_have_no_list() -> None:
    assert known_words((f"word{index}" for index in range(MAX_WORDS + 1)), {}) is None
    assert known_words((f"word{index}" for index in range(MAX_WORDS)), {}) is not None


@pytest.mark.parametrize("content", ["[]", "{", '{"words": 3, "subjects": {}}', '{"words": []}'])
def test_a_file_of_another_form_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "words.json").write_text(content)

    with pytest.raises(CheckpointMismatch, match=r"words\.json"):
        KnownWords.from_file(tmp_path / "words.json")
