"""Measured times are read from a file, and a wrong one is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from tools.planning.step_times import BatchTimes, SlotTimes, read_step_times

BASE = {"slots": 2, "step_s": {"1": 0.01, "4": 0.03}, "admit_s": 0.002, "dispatch_s": 0}


def written(folder: Path, stages: Any) -> Path:
    file = folder / "times.json"
    file.write_text(json.dumps({"source": "a bench", "stages": stages}))
    return file


def test_a_number_that_was_not_measured_takes_as_long_as_the_next_larger(tmp_path: Path) -> None:
    batches = {"batch_s": {"1": 0.1, "3": 0.2}, "max_wait_s": 0.005}
    measured = read_step_times(written(tmp_path, {"base": BASE, "tokenizer": batches}))
    assert measured.source == "a bench"
    assert measured.stages["tokenizer"] == BatchTimes(
        batch_s=(0.0, 0.1, 0.2, 0.2), max_wait_s=0.005
    )
    base = measured.stages["base"]
    assert isinstance(base, SlotTimes)
    assert base.together == 2
    assert base.step_s[1] == (0.01, 0.03)  # one row; with guidance two
    assert base.step_s[2] == (0.03, 0.03, 0.03)
    assert (base.admit_s, base.dispatch_s) == (0.002, 0.0)


def test_a_batch_with_more_rows_than_fit_runs_in_turns() -> None:
    times = BatchTimes(batch_s=(0.0, 0.1, 0.15))
    assert [times.seconds(rows) for rows in (1, 2, 3, 4)] == pytest.approx([0.1, 0.15, 0.25, 0.3])


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([], 'expected an object with "stages"'),
        ({"vae": {}}, "expected stages of orchestrator, .*, got vae"),
        ({"base": 3}, "base: expected an object, got 3"),
        ({"base": {"batch_s": {"1": 1}}}, "base: expected some of admit_s, .*, got batch_s"),
        ({"base": {**BASE, "slots": 0}}, "base.slots: expected 1 to 1024, got 0"),
        ({"base": {**BASE, "step_s": {}}}, "base.step_s: expected seconds by number, such as"),
        ({"base": {**BASE, "step_s": {"x": 1}}}, "expected whole numbers .* as keys, got 'x'"),
        (
            {"base": {**BASE, "step_s": {"1": -1}}},
            r"step_s\[1\]: expected seconds above 0 and below .*, got -1",
        ),
        (
            {"base": {**BASE, "admit_s": "1 ms"}},
            "admit_s: expected seconds above 0 and below .*, got '1 ms'",
        ),
        (
            {"tokenizer": {"batch_s": {"1": True}}},
            "expected seconds above 0 and below .*, got True",
        ),
    ],
)
def test_a_file_that_is_written_otherwise_is_refused(
    tmp_path: Path, stages: Any, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        read_step_times(written(tmp_path, stages))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a JSON file, there is no .*none\.json"):
        read_step_times(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match=r"broken.json cannot be read as JSON"):
        read_step_times(tmp_path / "broken.json")
