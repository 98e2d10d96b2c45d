"""Retired words of the project's former vocabulary stay out of its code and its docs."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Each stands for an idea that has the field's own name now; whole words, of either case.
RETIRED = (
    "told",
    "untold",
    "heard",
    "whom",
    "somebody",
    "anybody",
    "nobody",
    "knobs",
    "mended",
    "seated",
    "hand_back",
    "handed_back",
    "glue_s",
    "confidence_noise",
    "first_guidance",
    "minimum_steps",
    "without_composite",
    "claim_pb2",
    "receipt",
    "glue",
    "PoolPrograms",
    "layout_here",
    "on_whose_behalf",
    "agreed_of",
    "told_request",
    "tell_picture",
    "Painter",
    "place_of",
    "left_out_until",
    "UsualWaits",
    "knob",
)
ENDINGS = (".py", ".md", ".proto", ".yaml", ".yml", ".toml", ".sh", ".js")


def text_files() -> list[Path]:
    """Returns the tracked text files, but for history and this list."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = [ROOT / name for name in listed.stdout.splitlines() if name.endswith(ENDINGS)]
    return [
        file
        for file in files
        if file.is_file() and file != Path(__file__) and file.name != "CHANGELOG.md"
    ]


@pytest.mark.parametrize("word", RETIRED)
def test_a_retired_word_stays_out(word: str) -> None:
    pattern = re.compile(rf"\b{word}\b", re.IGNORECASE)
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in text_files()
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)
