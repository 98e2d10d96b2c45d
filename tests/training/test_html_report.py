"""The page of a run."""

import json
from pathlib import Path

import pytest
from PIL import Image

from training.html_report import SHOWN, write_report


def test_it_shows_every_number_and_the_last_pictures(tmp_path: Path) -> None:
    lines = [
        {"step": step, "seconds": 36.0 * step, "loss": 1 / step, "by_ratio": [None, step]}
        for step in (10, 20, 20, 30)
    ]
    log = "\n".join(map(json.dumps, lines)) + '\n{"step": 40, "lo'
    (tmp_path / "metrics.jsonl").write_text(log)
    (tmp_path / "run.json").write_text('{"task": "base <1>"}')
    (tmp_path / "pictures").mkdir()
    for step in range(SHOWN + 1):
        Image.new("RGB", (2, 2)).save(tmp_path / "pictures" / f"step-{step:07}.png")

    page = write_report(tmp_path).read_text()

    assert "base &lt;1&gt;: step 30, 0.30 h" in page
    assert page.count("<svg") == 2
    assert "50% to 100%" in page or "50\\% to 100\\%" in page
    assert page.count("data:image/png;base64,") == SHOWN
    assert "step-0000000" not in page
    assert "src='http" not in page


def test_a_folder_without_reports_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected the reports of a run in"):
        write_report(tmp_path)
