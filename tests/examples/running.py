"""Runs examples as processes, while the event loop of a test serves their calls."""

import asyncio
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


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
