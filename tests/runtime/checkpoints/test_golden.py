"""The golden example of a checkpoint: how it is kept, and how far answers may differ."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from services.runtime.checkpoints.errors import CheckpointMismatch, GoldenMismatch
from services.runtime.checkpoints.golden import (
    GOLDEN_FILE,
    Arrays,
    Golden,
    check_golden,
    difference,
    read_golden,
    write_golden,
)

TOKENS = np.arange(20, dtype=np.int32)
TEXT = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4).astype(ml_dtypes.bfloat16)
GOLDEN = Golden(inputs={"text": TEXT}, outputs={"tokens": TOKENS})


def test_an_example_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_golden(tmp_path, GOLDEN)
    again = read_golden(tmp_path)
    assert again is not None
    np.testing.assert_array_equal(again.inputs["text"], TEXT)
    assert again.inputs["text"].dtype == TEXT.dtype
    np.testing.assert_array_equal(again.outputs["tokens"], TOKENS)


def test_a_checkpoint_without_one_is_not_asked(tmp_path: Path) -> None:
    check_golden(tmp_path, lambda inputs: pytest.fail("it was asked"))
    assert read_golden(tmp_path) is None


def test_the_difference_of_tokens_is_a_share_and_of_numbers_relative() -> None:
    other = TOKENS.copy()
    other[3] += 1
    assert difference(TOKENS, other) == 0.05
    assert difference(TEXT, TEXT * ml_dtypes.bfloat16(1.5)) == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ValueError, match=r"expected an output of shape \(20,\), got \(19,\)"):
        difference(TOKENS, TOKENS[:-1])


@pytest.mark.parametrize("changed", [0, 2])
def test_answers_that_differ_a_little_are_taken(tmp_path: Path, changed: int) -> None:
    write_golden(tmp_path, GOLDEN)
    asked: list[Arrays] = []

    def answer(inputs: Arrays) -> Arrays:
        asked.append(inputs)
        return {"tokens": TOKENS + (changed > TOKENS)}

    check_golden(tmp_path, answer)
    assert len(asked) == 1


@pytest.mark.parametrize("answer", [TOKENS + (TOKENS < 3), 0 * TOKENS])
def test_answers_that_differ_much_are_refused(tmp_path: Path, answer: np.ndarray) -> None:
    write_golden(tmp_path, GOLDEN)
    with pytest.raises(GoldenMismatch, match=r"tokens differ by .*, expected at most 10%"):
        check_golden(tmp_path, lambda inputs: {"tokens": answer})


def test_an_answer_that_is_no_number_is_refused(tmp_path: Path) -> None:
    write_golden(tmp_path, Golden(inputs={}, outputs={"text": TEXT}))
    with pytest.raises(GoldenMismatch, match="text differ by nan%"):
        check_golden(tmp_path, lambda inputs: {"text": np.full(TEXT.shape, np.nan)})


@pytest.mark.parametrize("answer", [{}, {"tokens": TOKENS[:3]}])
def test_an_example_of_another_stage_is_refused(tmp_path: Path, answer: Arrays) -> None:
    write_golden(tmp_path, GOLDEN)
    with pytest.raises(CheckpointMismatch, match="is of another stage or shape"):
        check_golden(tmp_path, lambda inputs: answer)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    write_golden(tmp_path, GOLDEN)
    file = tmp_path / GOLDEN_FILE
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointMismatch, match="cannot be read"):
        check_golden(tmp_path, lambda inputs: {})
