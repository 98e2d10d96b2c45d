"""Runs `muse` as a process."""

import subprocess
import sys
from pathlib import Path


def muse(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    command = [sys.executable, "-c", "from tools.cli.main import main; main()", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


def check_refused(ended: subprocess.CompletedProcess[str], said: str) -> None:
    """Checks that a command failed with one line that begins with some words."""
    assert ended.returncode == 1
    assert ended.stderr.startswith(said)
    assert ended.stderr.count("\n") == 1


def files_in(folder: Path) -> set[str]:
    """Returns the names of what a folder has."""
    return {file.name for file in folder.iterdir()}
