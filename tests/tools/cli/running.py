"""Runs `muse` as a process."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType


def muse(
    *words: str, cwd: Path, variables: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, with further variables in its environment."""
    command = [sys.executable, "-c", "from tools.cli.main import main; main()", *words]
    environment = os.environ | variables
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
    )


def check_refused(ended: subprocess.CompletedProcess[str], said: str) -> None:
    """Checks that a command failed with one line that begins with some words."""
    assert ended.returncode == 1
    assert ended.stderr.startswith(said)
    assert ended.stderr.count("\n") == 1


def files_in(folder: Path) -> set[str]:
    """Returns the names of what a folder has."""
    return {file.name for file in folder.iterdir()}
