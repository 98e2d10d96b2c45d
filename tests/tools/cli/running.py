"""Runs `muse` as a process."""

import subprocess
import sys
from pathlib import Path


def muse(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    command = [sys.executable, "-c", "from tools.cli.main import main; main()", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)
