"""`muse generate --safety-policy`."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from tests.orchestrator.test_safety import EXPLICIT, guarded
from tests.tools.cli.running import files_in, muse


async def test_a_policy_is_asked_for_and_its_score_is_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with guarded(monkeypatch, "tag") as house:

        async def generate(*words: str) -> subprocess.CompletedProcess[str]:
            words = ("generate", "a fox", "--server", house.address, "--seed", *words)
            return await asyncio.to_thread(muse, *words, cwd=tmp_path)

        sent = await generate("7", "--safety-policy", "block", "--out", "sent.png")
        assert "sent.png  seed 7  safety score 0.10\n" in sent.stdout + sent.stderr
        blurred = await generate(f"{EXPLICIT}", "--safety-policy", "blur", "--out", "blurred.png")
        assert f"seed {EXPLICIT}  safety score 0.90, blurred" in blurred.stdout + blurred.stderr
        blocked = await generate(f"{EXPLICIT}", "--safety-policy", "block", "--out", "blocked.png")
        assert "every picture was blocked" in blocked.stderr
    assert files_in(tmp_path) == {"sent.png", "blurred.png"}
