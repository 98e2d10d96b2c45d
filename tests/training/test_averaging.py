"""The average of a finished run by another decay or interval."""

import json
from pathlib import Path

import numpy as np
import pytest

from services.presets import preset
from services.runtime.checkpoints.serialization import (
    codebook_fingerprint,
    load_checkpoint,
    save_checkpoint,
)
from services.tokenizer.config import TokenizerConfig
from training.averaging import average_run
from training.snapshots import Snapshots

CONFIG = preset("tiny").low_tokenizer


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of 25 steps with its checkpoint; the codebook is its step everywhere."""
    for step in (10, 15, 20, 25):
        codebook = np.full((CONFIG.codebook_size, CONFIG.code_dim), step, np.float32)
        Snapshots(tmp_path / "snapshots").save(step, {"quantizer.codebook": codebook})
    save_checkpoint(
        tmp_path / "exported",
        stage="tokenizer",
        config=CONFIG,
        parameters={"quantizer.codebook": np.zeros((2, 2), np.float32)},
        fingerprint={"codebook": "codebook:of-the-run"},
        record={"preset": "tiny", "averaged_steps": [25]},
    )
    return tmp_path


def test_it_takes_multiples_of_the_interval_and_the_last_snapshot(run: Path) -> None:
    steps = average_run(run, run / "exported", run / "new", decay=0.5, every=10)

    made = load_checkpoint(run / "new", stage="tokenizer", config_type=TokenizerConfig)
    codebook = made.parameters["quantizer.codebook"]
    assert steps == [10, 20, 25]
    assert np.unique(codebook.astype(np.float32)) == [0.5 * (0.5 * (10 + 20)) + 0.5 * 25]
    assert made.fingerprint == {"codebook": codebook_fingerprint(codebook)}
    assert made.record == {"preset": "tiny", "averaged_steps": [10, 20, 25], "average_decay": 0.5}
    old = json.loads((run / "exported" / "config.json").read_text())
    assert old["fingerprint"] == {"codebook": "codebook:of-the-run"}


def test_what_belongs_to_the_weights_stays_behind(run: Path) -> None:
    exported, new = run / "exported", run / "new"
    for name in ("golden.safetensors", "sampling.json", "adapters/fox/config.json"):
        (exported / name).parent.mkdir(parents=True, exist_ok=True)
        (exported / name).write_bytes(b"{}")
    average_run(run, exported, new, decay=0.5, every=10)
    expected = {"config.json", "model.safetensors", "training.json", "sampling.json"}
    assert {each.name for each in new.iterdir()} == expected


@pytest.mark.parametrize(("decay", "every"), [(1.0, 10), (-0.1, 10), (0.7, 0)])
def test_numbers_out_of_range_are_refused(run: Path, decay: float, every: int) -> None:
    with pytest.raises(ValueError, match="expected a decay of 0 to below 1 and an interval of at"):
        average_run(run, run / "exported", run / "new", decay=decay, every=every)


def test_the_checkpoint_that_is_read_is_not_written_over(run: Path) -> None:
    with pytest.raises(ValueError, match="expected another folder to write"):
        average_run(run, run / "exported", run / "exported", decay=0.7, every=5)


def test_a_folder_without_snapshots_is_refused(run: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected snapshots in"):
        average_run(run / "elsewhere", run / "exported", run / "new", decay=0.7, every=5)
