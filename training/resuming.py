"""What a run keeps in its folder, so that it goes on exactly where it stopped.

run.json        what the run is of: another task, shape or data does not go on there
lock            held by the process that trains there
state/STEP/     the last two saved states
metrics.jsonl   the scalars of every report
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import orbax.checkpoint as ocp

from training.sharded_step import State
from training.whole_files import whole_file

logger = logging.getLogger(__name__)


class ResumeError(ValueError):
    """A run cannot go on in a folder, because of what the folder holds or who trains there."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps every other run out of a folder; the system gives the lock back if the process dies.

    Raises:
        ResumeError: another process trains there.
    """
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResumeError(
                f"another process trains in {folder}: wait for its end, or give another --out"
            ) from error
        yield


def check_same_run(file: Path, shape: Mapping[str, Any]) -> None:
    """Records what a run is of, or compares it with what an earlier session recorded.

    Raises:
        ResumeError: the earlier session was of something else.
    """
    wanted = json.loads(json.dumps(shape))  # as it reads back: tuples are lists
    if not file.is_file():
        with whole_file(file) as part:  # every process of a run writes data.json
            part.write_text(json.dumps(wanted, indent=2) + "\n")
        return
    recorded = json.loads(file.read_text())
    for name in sorted({*recorded, *wanted}):
        if recorded.get(name) != wanted.get(name):
            raise ResumeError(
                f"{file.parent} holds a run whose {name} is {recorded.get(name)!r}, this one's is "
                f"{wanted.get(name)!r}: give another --out, or what the run began with"
            )


class States:
    """The saved states of a run; of two, so that a damaged one leaves another."""

    def __init__(self, folder: Path) -> None:
        """Opens the folder, which is created if missing."""
        self._folder = folder.absolute()
        self._manager = ocp.CheckpointManager(
            self._folder, options=ocp.CheckpointManagerOptions(max_to_keep=2, create=True)
        )

    @property
    def latest(self) -> int:
        """Step of the newest saved state; 0 if there is none."""
        return int(self._manager.latest_step() or 0)

    def close(self) -> None:
        """Waits for a save in progress."""
        self._manager.close()

    def restore(self, template: State) -> tuple[int, State, float] | None:
        """Returns step, state and seconds of the newest state that can be read; None without one.

        A state that cannot be read is set aside, as `STEP.damaged` beside the folder.

        Args:
            template: Shapes of the state.

        Raises:
            ResumeError: there are states, and none can be read.
        """
        damaged: list[Path] = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            arguments = ocp.args.Composite(
                state=ocp.args.StandardRestore(template), clock=ocp.args.JsonRestore()
            )
            try:
                restored = self._manager.restore(step, args=arguments)
                seconds = float(restored["clock"]["seconds"])
            except Exception as error:  # whatever Orbax, Zarr or JSON make of a damaged file
                damaged.append(self._folder / str(step))
                logger.warning("the state of step %d cannot be read: %s", step, error)
                continue
            for folder in damaged:
                folder.rename(self._folder.parent / f"{folder.name}.damaged")
            self._manager.reload()
            return step, restored["state"], seconds
        if damaged:
            raise ResumeError(
                f"none of the states {', '.join(map(str, damaged))} can be read: bring one back, "
                "or start anew in another --out"
            )
        return None

    def save(self, step: int, state: State, seconds: float) -> None:
        """Saves a state in the background, unless that of this step is saved already."""
        if self._manager.latest_step() != step:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    clock=ocp.args.JsonSave({"seconds": seconds}),
                ),
            )


def open_log(file: Path) -> TextIO:
    """Opens the log of reports to append to; a line that was cut short stays a line of its own."""
    cut = False
    if file.is_file() and file.stat().st_size:
        with file.open("rb") as written:
            written.seek(-1, os.SEEK_END)
            cut = written.read() != b"\n"
    log = file.open("a")
    if cut:
        log.write("\n")
    return log


def last_reported(log: Path) -> dict[str, float]:
    """Returns the numbers that an earlier session reported last; a line cut short is ignored."""
    return _reported(log, newest_first=True)


def first_reported(log: Path) -> dict[str, float]:
    """Returns the numbers that the first session reported first; empty if there was none."""
    return _reported(log, newest_first=False)


def _reported(log: Path, *, newest_first: bool) -> dict[str, float]:
    lines = log.read_text().splitlines() if log.is_file() else []
    for line in reversed(lines) if newest_first else lines:
        try:
            numbers = json.loads(line)
        except json.JSONDecodeError:
            continue
        return {name: value for name, value in numbers.items() if name not in ("step", "seconds")}
    return {}
