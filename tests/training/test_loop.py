"""Tests for the loop: a resumed run is the run that was not stopped."""

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from training.__main__ import INTERRUPTED, _train
from training.flags import RunFlags
from training.html_report import write_report
from training.loop import LoopSettings, train
from training.mesh import one_device
from training.optimizers import Recipe
from training.resuming import ResumeError, locked
from training.snapshots import Snapshots
from training.tasks.codebook_watch import CodebookCollapse, CodebookWatch

RECIPE = Recipe(
    steps=4,
    batch_size=1,
    learning_rate=1e-3,
    warm_up_steps=1,
    first_decay=0.9,
    second_decay=0.99,
    weight_decay=0.0,
    average_every=2,
)


class Counting:
    """A task whose state folds in every batch in order; it can stop itself as a signal would."""

    name = "counting"
    recipe = RECIPE
    given: Mapping[str, np.ndarray] = {}

    def __init__(
        self, *, stop_at: int = -1, broken_at: int = -1, fault: str = "broken", size: int = 1
    ) -> None:
        """Sends SIGTERM to this process at one step; is broken or diverging at another."""
        self.stop_at, self.broken_at, self.fault, self.size = stop_at, broken_at, fault, size

    def initial_state(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Returns zero."""
        return {"total": jnp.zeros((), jnp.float32)}

    def batch(self, step: int) -> np.ndarray:
        """Returns the step's own number."""
        return np.array([step + 1], np.float32)

    def phase(self, step: int) -> str:
        """Returns the fault at the step that has one; asked at each step, it may stop."""
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.fault if step == self.broken_at else "counting"

    def train_step(
        self, state: dict[str, Any], batch: Any, step: Any, phase: str
    ) -> tuple[dict[str, Any], Mapping[str, Any]]:
        """Folds the batch in, so that order and number matter."""
        total = state["total"] * 0.5 + batch[0]
        loss = {"counting": 1 / total, "broken": total * jnp.nan, "diverging": total * 100}[phase]
        return {"total": total}, {"loss": loss}

    def picture(self, state: dict[str, Any], batch: Any) -> Image.Image:
        """Draws a dot."""
        return Image.new("RGB", (4, 4))

    def params(self, state: dict[str, Any]) -> dict[str, Any]:
        """Returns the total."""
        return state

    @property
    def shape(self) -> Mapping[str, Any]:
        """Returns what a resumed run must share."""
        return {"config": {"sizes": (1, self.size)}}

    def export(
        self, params: Mapping[str, np.ndarray], folder: Path, record: Mapping[str, Any]
    ) -> None:
        """Writes the total."""
        folder.mkdir(exist_ok=True)
        (folder / "total").write_text(str(float(params["total"])))


def settings(out: Path, steps: int = 12) -> LoopSettings:
    """Reports, draws and saves often."""
    return LoopSettings(
        steps=steps, out=out, report_every=1, picture_every=5, save_every=5, snapshot_every=4
    )


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
    run = RunFlags(data=tmp_path, out=out, checkpoints=tmp_path)
    with pytest.raises(SystemExit) as ended:
        _train(Counting(stop_at=2), run, one_device(), checkpoint)
    assert ended.value.code == INTERRUPTED
    assert list(checkpoint.iterdir()) == []
    assert (out / "unfinished" / "total").is_file()

    _train(Counting(), run, one_device(), checkpoint)

    assert (checkpoint / "total").is_file()


def test_a_finished_run_takes_no_further_step(tmp_path: Path) -> None:
    first = train(Counting(), settings(tmp_path))
    again = train(Counting(broken_at=0), settings(tmp_path))
    assert float(again.state["total"]) == float(first.state["total"])
    assert again.metrics == first.metrics != {}


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_saved_state(
    tmp_path: Path,
) -> None:
    fault = "step 8 gave no finite number for loss; the last good state is that of step 5"
    with pytest.raises(FloatingPointError, match=fault):
        train(Counting(broken_at=7), settings(tmp_path))
    assert train(Counting(), settings(tmp_path)).finished


def test_a_loss_far_above_the_first_one_ends_the_run(tmp_path: Path) -> None:
    fault = "step 8 gave a loss of .* more than 4 times that of the first report.* of step 5"
    with pytest.raises(FloatingPointError, match=fault):
        train(Counting(broken_at=7, fault="diverging"), settings(tmp_path))
    with pytest.raises(FloatingPointError, match=fault):  # resumed, it knows the first loss
        train(Counting(broken_at=7, fault="diverging"), settings(tmp_path))
    assert train(Counting(), settings(tmp_path)).finished


def test_reports_say_how_fast_a_run_learns_and_what_its_time_went_into(tmp_path: Path) -> None:
    run = train(Counting(), settings(tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]

    assert run.metrics == {key: lines[-1][key] for key in run.metrics}
    for line in lines:
        assert line["examples_per_s"] > 0
        assert 0 < line["goodput"] < 1
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"goodput" in events.read_bytes()


def test_skipped_examples_are_counted_in_every_report_and_not_where_data_cannot_skip(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = iter([0, 0, 1, 12345])
    counting = replace(settings(tmp_path / "files", steps=4), skipped=lambda: next(counts))
    run = train(Counting(), counting)
    train(Counting(), settings(tmp_path / "scenes", steps=1))

    lines = (tmp_path / "files" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["skipped"] for line in lines] == [0, 0, 1, 12345]
    assert run.metrics["skipped"] == 12345
    (events,) = (tmp_path / "files" / "tensorboard").iterdir()
    assert b"skipped" in events.read_bytes()
    assert write_report(tmp_path / "files").read_text().count("<svg") == len(run.metrics)
    *files, scenes = (line for line in capsys.readouterr().out.splitlines() if "step" in line)
    assert "skipped 0," in files[0]
    assert "skipped 12345," in files[-1]
    assert "skipped" not in scenes
    assert "skipped" not in (tmp_path / "scenes" / "metrics.jsonl").read_text()


def test_the_profiler_records_the_steps_that_are_asked_for(tmp_path: Path) -> None:
    train(Counting(), replace(settings(tmp_path), profile=range(3, 5)))
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_steps_to_profile_that_the_run_does_not_take_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="profile: expected steps of the run's 12, got 11:14"):
        replace(settings(tmp_path), profile=range(11, 14))


def test_pictures_are_written_as_it_goes(tmp_path: Path) -> None:
    train(Counting(), settings(tmp_path))
    names = sorted(file.name for file in (tmp_path / "pictures").iterdir())
    assert names == ["step-0000005.png", "step-0000010.png", "step-0000012.png"]


def test_settings_of_zero_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        settings(tmp_path, steps=0)


def test_the_export_averages_the_snapshots(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    run = RunFlags(data=tmp_path, out=tmp_path / "out", checkpoints=tmp_path)
    _train(Counting(), run, one_device(), checkpoint)
    after_two, after_four = 0.5 * 1 + 2, 0.5 * (0.5 * (0.5 * 1 + 2) + 3) + 4
    expected = 0.7 * after_two + 0.3 * after_four
    assert float((checkpoint / "total").read_text()) == pytest.approx(expected)


def test_a_resumed_run_saves_its_snapshots_again(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError):
        train(Counting(broken_at=9), settings(tmp_path))
    whole = train(Counting(), settings(tmp_path))
    assert whole.snapshots.steps == [4, 8, 12]


def test_a_run_of_another_shape_does_not_go_on_in_the_same_folder(tmp_path: Path) -> None:
    first = train(Counting(), settings(tmp_path, steps=5))
    with pytest.raises(ResumeError, match=r"config is .*1, 1.*this one's is .*1, 2"):
        train(Counting(size=2), settings(tmp_path))
    again = train(Counting(), settings(tmp_path, steps=5))
    assert float(again.state["total"]) == float(first.state["total"])


def test_a_state_cut_short_is_not_resumed_from(tmp_path: Path) -> None:
    train(Counting(), settings(tmp_path, steps=5))
    (tmp_path / "state" / "9.orbax-checkpoint-tmp-123").mkdir()
    resumed = train(Counting(), settings(tmp_path))
    whole = train(Counting(), settings(tmp_path / "whole"))
    assert float(resumed.state["total"]) == float(whole.state["total"])


def test_a_full_disk_ends_the_run_and_keeps_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    train(Counting(stop_at=5), settings(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr(Snapshots, "save", full)
        with pytest.raises(OSError, match="No space left"):
            train(Counting(), settings(tmp_path))
    resumed = train(Counting(), settings(tmp_path))
    assert resumed.finished


def test_a_damaged_newest_state_is_set_aside_and_the_one_before_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(Counting(), settings(tmp_path, steps=10))
    for file in (tmp_path / "state" / "10").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")

    resumed = train(Counting(), settings(tmp_path))
    whole = train(Counting(), settings(tmp_path / "whole"))

    assert "the state of step 10 cannot be read" in caplog.text
    assert (tmp_path / "10.damaged").is_dir()
    assert float(resumed.state["total"]) == float(whole.state["total"])


def test_a_run_without_one_whole_state_is_refused(tmp_path: Path) -> None:
    train(Counting(), settings(tmp_path, steps=10))
    for file in (tmp_path / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")

    with pytest.raises(ResumeError, match=r"none of the states .*10, .*5 can be read"):
        train(Counting(), settings(tmp_path))


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(ResumeError, match="another process trains in"):
        train(Counting(), settings(tmp_path))
    assert train(Counting(), settings(tmp_path)).finished


def test_fewer_steps_than_are_done_are_refused(tmp_path: Path) -> None:
    train(Counting(), settings(tmp_path, steps=7))

    with pytest.raises(ResumeError, match="a run of 7 steps already, more than the 6 that are"):
        train(Counting(), settings(tmp_path, steps=6))


def test_a_report_that_was_cut_short_is_ignored(tmp_path: Path) -> None:
    first = train(Counting(), settings(tmp_path))
    with (tmp_path / "metrics.jsonl").open("a") as log:
        log.write('{"step": 12, "los')

    assert train(Counting(), settings(tmp_path)).metrics == first.metrics
    train(Counting(), settings(tmp_path, steps=13))
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 13


def test_without_a_terminal_every_report_is_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(Counting(), settings(tmp_path, steps=3))

    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(", loss")[0] for line in lines] == [
        f"counting: step {step} of 3" for step in (1, 2, 3)
    ]
    assert lines[-1].endswith("0:00:00 left")


class Collapsing(Counting):
    """A task whose codebook goes out of use after a step."""

    def __init__(self, *, after: int, stop_at: int = -1) -> None:
        """Reports full usage up to a step."""
        super().__init__(stop_at=stop_at)
        self.after = after

    def train_step(
        self, state: dict[str, Any], batch: Any, step: Any, phase: str
    ) -> tuple[dict[str, Any], Mapping[str, Any]]:
        """Reports a usage beside the loss."""
        state, reported = super().train_step(state, batch, step, phase)
        return state, {**reported, "usage": jnp.where(step < self.after, 1.0, 0.0)}


def watched(out: Path) -> LoopSettings:
    """Saves every second step and stops after four steps of collapse."""
    return LoopSettings(
        steps=12, out=out, report_every=1, save_every=2, watch=CodebookWatch(patience=4)
    )


def test_a_collapsed_codebook_stops_the_run_and_no_state_of_the_collapse_is_saved(
    tmp_path: Path,
) -> None:
    with pytest.raises(
        CodebookCollapse, match=r"at step 9, .* good saved state is that of step 4:"
    ):
        train(Collapsing(after=4), watched(tmp_path))
    resumed = train(Collapsing(after=12), watched(tmp_path))
    assert resumed.finished
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == [*range(1, 10), *range(5, 13)]


def test_a_signal_in_a_collapse_saves_no_state_of_it(tmp_path: Path) -> None:
    assert train(Collapsing(after=4, stop_at=6), watched(tmp_path)).step == 7
    assert train(Collapsing(after=12), watched(tmp_path)).finished
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[7])["step"] == 5
