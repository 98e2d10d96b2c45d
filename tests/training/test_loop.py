"""Tests for the loop: a resumed run is the run that was not stopped."""

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from training.__main__ import INTERRUPTED, _train
from training.loop import LoopSettings, train


class Counting:
    """A task whose state folds in every batch in order; it can stop itself as a signal would."""

    name = "counting"

    def __init__(self, *, stop_at: int = -1, broken_at: int = -1) -> None:
        """Sends SIGTERM to this process at one step; loses its loss at another."""
        self.stop_at, self.broken_at = stop_at, broken_at

    def initial_state(self) -> dict[str, Any]:
        """Returns zero."""
        return {"total": jnp.zeros((), jnp.float32)}

    def batch(self, step: int) -> np.ndarray:
        """Returns the step's own number."""
        return np.float32(step + 1)

    def train_step(
        self, state: dict[str, Any], batch: np.ndarray, step: int
    ) -> tuple[dict[str, Any], Mapping[str, Any]]:
        """Folds the batch in, so that order and number matter."""
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        total = state["total"] * 0.5 + batch
        return {"total": total}, {"loss": np.nan if step == self.broken_at else total}

    def picture(self, state: dict[str, Any]) -> Image.Image:
        """Draws a dot."""
        return Image.new("RGB", (4, 4))

    def export(self, state: dict[str, Any], folder: Path, record: Mapping[str, Any]) -> None:
        """Writes the total."""
        (folder / "total").write_text(str(float(state["total"])))


def settings(out: Path, steps: int = 12) -> LoopSettings:
    """Reports, draws and saves often."""
    return LoopSettings(steps=steps, out=out, report_every=1, picture_every=5, save_every=5)


def test_a_run_stopped_by_a_signal_goes_on_exactly_where_it_stopped(tmp_path: Path) -> None:
    whole = train(Counting(), settings(tmp_path / "whole"))
    stopped = train(Counting(stop_at=6), settings(tmp_path / "stopped"))
    assert (stopped.finished, stopped.step) == (False, 7)

    resumed = train(Counting(), settings(tmp_path / "stopped"))

    assert (resumed.finished, resumed.step) == (True, 12)
    assert float(resumed.state["total"]) == float(whole.state["total"])
    lines = (tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 13))
    assert resumed.seconds > 0


def test_a_command_that_was_stopped_says_so_by_its_status(tmp_path: Path) -> None:
    out, checkpoint = tmp_path / "out", tmp_path / "checkpoint"
    checkpoint.mkdir()
    with pytest.raises(SystemExit) as ended:
        _train(Counting(stop_at=2), 4, out, checkpoint, tmp_path, "demo")
    assert ended.value.code == INTERRUPTED
    assert list(checkpoint.iterdir()) == []

    _train(Counting(), 4, out, checkpoint, tmp_path, "demo")

    assert (checkpoint / "total").is_file()


def test_a_finished_run_takes_no_further_step(tmp_path: Path) -> None:
    first = train(Counting(), settings(tmp_path))
    again = train(Counting(broken_at=0), settings(tmp_path))
    assert float(again.state["total"]) == float(first.state["total"])
    assert again.metrics == first.metrics != {}


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_saved_state(
    tmp_path: Path,
) -> None:
    with pytest.raises(FloatingPointError, match="step 8"):
        train(Counting(broken_at=7), settings(tmp_path))
    assert train(Counting(), settings(tmp_path)).finished


def test_pictures_are_written_as_it_goes(tmp_path: Path) -> None:
    train(Counting(), settings(tmp_path))
    names = sorted(file.name for file in (tmp_path / "pictures").iterdir())
    assert names == ["step-0000005.png", "step-0000010.png", "step-0000012.png"]


def test_settings_of_zero_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        settings(tmp_path, steps=0)
