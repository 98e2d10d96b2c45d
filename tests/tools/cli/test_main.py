"""The command line: a mistake is one clear line and a failure, and nothing is started for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.cli.running import muse

NOBODY = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a fox", "--checkpoints", "none"], "muse: no checkpoints in none: expected a folder"),
        (["a fox", "--server", NOBODY], f"muse: no orchestrator answers at {NOBODY}"),
        ([""], "muse: prompt: expected a text, got an empty one"),
        (["x" * 4097], "muse: prompt: expected at most 4096 characters, got 4097 characters"),
        (["a fox", "--count", "0"], "muse: count: expected 1 to 16, got 0"),
        (["a fox", "--count", "1000"], "muse: count: expected 1 to 16, got 1000"),
        (["a fox", "--seed", "-1"], "muse: seed: expected 0 to 18446744073709551615, got -1"),
        (["a fox", "--seed", str(2**64)], "muse: seed: expected 0 to 18446744073709551615, got"),
        (["a fox", "--steps", "0"], "muse: base.steps: expected 1 to 256, got 0"),
        (["a fox", "--steps", "-3"], "muse: steps: expected a number from 0 up, got -3"),
        (["a fox", "--superres-steps", "10000"], "muse: superres.steps: expected 1 to 256, got"),
        (["a fox", "--guidance", "nan"], "muse: base.guidance: expected 0 to 100, got nan"),
        (["a fox", "--temperature", "-1"], "muse: base.temperature: expected 0 to 100, got -1"),
        (
            ["a fox", "--trace-html", "a.txt"],
            "muse: trace_html: expected a name that ends in .h",
        ),
        (["a fox", "--out", "a.gif"], "muse: out: expected a name that ends in .png"),
    ],
)
def test_a_wrong_generate_says_why_in_one_line(tmp_path: Path, words: list[str], said: str) -> None:
    ended = muse("generate", *words, cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith(said)
    assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["up", "--checkpoints", "none"], "muse: no checkpoints in none"),
        (["up", "--base-port", "70000"], "muse: base_port: expected 1 to 65531, got 70000"),
        (["up", "--mesh", "data=2"], "muse: mesh: expected model=N, such as model=4, got the axis"),
        (["status", "--server", NOBODY], f"muse: no orchestrator answers at {NOBODY}"),
        (["describe", "--preset", "huge"], "muse: unknown preset 'huge': expected one of muse-3b"),
        (["describe", "--preset", "tiny", "--chip", "abacus"], "muse: unknown chip 'abacus'"),
    ],
)
def test_every_other_command_does_so_too(tmp_path: Path, words: list[str], said: str) -> None:
    ended = muse(*words, cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith(said)
    assert ended.stderr.count("\n") == 1


def test_help_imports_no_jax_and_nothing_of_grpc(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom tools.cli.main import app\n"
        "try:\n    app(['generate', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'jax', 'flax', 'grpc', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "--superres-steps" in ended.stdout
