"""Runs examples as processes, while the event loop of a test serves their calls."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def node_for(folder: Path) -> str:
    """Returns the program Node; skips the test where it or a folder's packages are not there.

    In CI both have to be: there the test fails.
    """
    program = shutil.which("node")
    if program is not None and (folder / "node_modules").is_dir():
        return program
    absent = (
        "node"
        if program is None
        else f"what {folder.relative_to(EXAMPLES.parent)}/package.json names"
    )
    reason = f"{absent} is not here: install Node, then run make node-packages"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


async def run(*command: str | Path, cwd: Path) -> tuple[int, str]:
    """Runs a command to its end; returns its exit status and its output."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def run_python(example: str, *words: str | Path, cwd: Path) -> tuple[int, str]:
    """Runs an example in Python."""
    return await run(sys.executable, EXAMPLES / example, *words, cwd=cwd)
