"""Scripts of small runs as processes of their own, on virtual devices of the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
QUICK = "--xla_backend_optimization_level=0"  # to compile; what runs is tiny


def start(
    script: str, runs: list[dict[str, Any]], *processes: str, devices: int = 1
) -> "subprocess.Popen[str]":
    """Starts a script of this folder.

    Args:
        script: Its name.
        runs: What it shall train.
        processes: Coordinator, number of processes and which of them this is; none for one alone.
        devices: Virtual devices of the process.
    """
    flags = f"{QUICK} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tests/training" / script), json.dumps(runs), *processes],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def losses(process: "subprocess.Popen[str]") -> list[list[float]]:
    """Waits for the end of a process and returns what it printed of each run."""
    printed, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    found = [line.removeprefix("losses: ") for line in printed.splitlines() if "losses: " in line]
    return [json.loads(line) for line in found]
