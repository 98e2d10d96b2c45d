"""Tests for the snapshots of a run and the average that it exports."""

from pathlib import Path

import numpy as np
import pytest

from training.snapshots import KEPT, Snapshots


def test_each_snapshot_takes_its_share_of_what_came_before(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    for step, value in ((2, 2.0), (4, 4.0), (6, 6.0)):
        snapshots.save(step, {"kernel": np.full((3, 2), value, np.float32)})
    average = snapshots.average(0.7)
    by_hand = 0.7 * (0.7 * 2 + 0.3 * 4) + 0.3 * 6
    np.testing.assert_allclose(average["kernel"], np.full((3, 2), by_hand), rtol=1e-6)


def test_snapshots_too_old_to_matter_are_deleted(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    for step in range(KEPT + 3):
        snapshots.save(step, {"scale": np.ones(1, np.float32)})
    assert snapshots.steps == list(range(3, KEPT + 3))


def test_a_resumed_run_discards_the_snapshots_after_its_saved_state(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    for step in (5, 10, 15):
        snapshots.save(step, {"scale": np.ones(1, np.float32)})
    snapshots.discard_after(10, every=5)
    assert snapshots.steps == [5, 10]


def test_a_snapshot_that_was_cut_short_does_not_count(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    snapshots.save(5, {"scale": np.ones(1, np.float32)})
    (tmp_path / "step-00000010.part").write_bytes(b"half")
    assert snapshots.steps == [5]


def test_an_average_of_nothing_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        Snapshots(tmp_path).average(0.7)
