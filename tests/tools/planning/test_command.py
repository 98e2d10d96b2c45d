"""`muse plan` from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MEASURED: dict[str, Any] = {
    "source": "made up for a test",
    "stages": {
        "orchestrator": {"batch_s": {"1": 0.004}},
        "text_encoder": {"batch_s": {"1": 0.010, "8": 0.020}, "max_wait_s": 0.005},
        "base": {"slots": 8, "step_s": {"2": 0.010, "16": 0.016}, "admit_s": 0.002},
        "superres": {"slots": 4, "step_s": {"2": 0.020, "8": 0.040}, "admit_s": 0.002},
        "tokenizer": {"batch_s": {"1": 0.015, "4": 0.060}, "max_wait_s": 0.005},
    },
}
ASKED = ("plan", "--images-per-second", "20", "--p99", "1500ms", "--chip", "v5e")


def run_muse(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = "from tools.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "100"},
    )


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    file = tmp_path / "times.json"
    file.write_text(json.dumps(MEASURED))
    return file


def test_a_plan_from_measured_times(measured: Path, tmp_path: Path) -> None:
    words = ("--step-times", str(measured), "--requests", "1000", "--mix", "steps=12", "--mix", "")
    run = run_muse(*ASKED, *words, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    for shown in ("made up for a test", "simulated", "by formula", "spare", "Not modelled"):
        assert shown in run.stdout
    assert "computed" not in run.stdout
    report = json.loads((tmp_path / "out/plan/plan.json").read_text())
    assert report["simulated"] is True
    assert report["measured"]["stages"] == sorted(MEASURED["stages"])
    stages = report["stages"]
    assert set(stages) == set(MEASURED["stages"])
    assert (
        report["chips"]
        == sum(each["replicas"] for each in stages.values()) - (stages["orchestrator"]["replicas"])
    )
    assert next(iter(report["checks"].values()))["p99_s"] <= 1.5
    assert (tmp_path / "out/plan/plan.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "out/plan/plan.html").read_text()
    assert "<svg" in page
    assert "superres" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--chip", "abacus"), "muse: unknown chip 'abacus': expected one of h200, v4, v5e"),
        (("--preset", "huge"), "muse: unknown preset 'huge': expected one of muse-3b"),
        (("--p99", "soon"), "muse: p99: expected a time above 0, such as 2s or 500ms, got 'soon'"),
        (
            ("--p99", "100ms"),
            "muse: p99: 0.1 s cannot be kept: alone in the fleet, a request takes",
        ),
        (("--images-per-second", "-3"), "muse: images_per_second: expected a number above 0, got"),
        (
            ("--images-per-second", "1e9"),
            "muse: images_per_second: a run for a p99 of 1.5 s takes 45 s, in which 4.5e+10",
        ),
        (("--mix", "steps=many"), "muse: mix: kind: expected steps to be a number (int), got"),
        (("--efficiency", "1.5"), "muse: efficiency: expected a share above 0, 1 at most, got 1.5"),
        (("--max-batch-size", "0"), "muse: max_batch_size: expected 1 to 1024, got 0"),
        (("--rows", "0"), "muse: rows: expected 1 to 1024, got 0"),
        (("--requests", "10"), "muse: requests: expected 1000 to 10000000"),
        (("--time-between-failures", "0"), "muse: time_between_failures: expected a time above 0"),
        (("--step-times", "none.json"), "muse: step_times: expected a JSON file, there is no none"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_1(
    measured: Path, tmp_path: Path, words: tuple[str, str], said: str
) -> None:
    given = dict(zip(ASKED[1::2], ASKED[2::2], strict=True)) | {"--step-times": str(measured)}
    given[words[0]] = words[1]
    run = run_muse("plan", *(word for pair in given.items() for word in pair), cwd=tmp_path)
    assert run.returncode == 1
    assert run.stderr.startswith(said)
    assert run.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
