"""The command line: a mistake is one clear line and a failure, and nothing is started for it."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_stages import House
from tests.tools.cli.running import check_refused, files_in, muse

UNREACHABLE = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--checkpoints", "none"], "muse: no checkpoints in none: expected a folder"),
        (["--server", UNREACHABLE], f"muse: no orchestrator answers at {UNREACHABLE}"),
        (["--steps", "-3"], "muse: steps: expected a number from 0 up, got -3"),
        (
            ["--server", UNREACHABLE, "--seed", "-1"],
            f"muse: seed: expected 0 to {2**64 - 1}, got -1",
        ),
        (
            ["--server", UNREACHABLE, "--seed", str(2**64)],
            f"muse: seed: expected 0 to {2**64 - 1}, got",
        ),
        (["--adapter", "fox=much"], "muse: adapter: expected NAME or NAME=WEIGHT, such as fox=0.8"),
        (["--adapter", "fox", "--adapter", "fox=2"], "muse: adapter: expected each name once, got"),
        (["--trace-html", "a.txt"], "muse: trace_html: expected a name that ends in .h"),
        (["--out", "a.gif"], "muse: out: expected a name that ends in .png"),
        (["--out", "/proc/a.png"], "muse: out: nothing can be written to /proc: "),
        (["--trace-html", f"{__file__}/a.html"], "muse: trace_html: nothing can be written to "),
        (["--filmstrip", "/proc/a.png"], "muse: filmstrip: nothing can be written to /proc: "),
        (["--animate", "/proc/a.gif"], "muse: animate: nothing can be written to /proc: "),
        (["--preview-dir", "/proc/a"], "muse: preview_dir: nothing can be written to /proc: "),
        (
            ["--server", UNREACHABLE, "--checkpoints", "mine"],
            f"muse: checkpoints: {UNREACHABLE} has its own; give a server (--server, MUSE_SERVER)",
        ),
    ],
)
def test_a_wrong_generate_says_why_in_one_line(tmp_path: Path, words: list[str], said: str) -> None:
    check_refused(muse("generate", "a fox", *words, cwd=tmp_path), said)
    assert files_in(tmp_path) == set()


@pytest.mark.parametrize(
    "words",
    [
        ("bench", "--server", UNREACHABLE),
        ("plan", "--images-per-second=1", "--p99=2s", "--chip=v5e"),
    ],
)
def test_the_folder_of_a_report_is_tried_first(words: tuple[str, ...], tmp_path: Path) -> None:
    ended = muse(*words, "--out=/proc/a", cwd=tmp_path)
    check_refused(ended, "muse: out: nothing can be written to /proc: ")


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    ended = muse("generate", "a fox", "--out=a.png", cwd=tmp_path)
    check_refused(ended, "muse: out: expected a file, got the folder a.png")


async def test_a_server_may_be_named_by_the_environment_and_a_prompt_begin_with_a_hyphen(
    house: House, tmp_path: Path
) -> None:
    variables = {"MUSE_SERVER": house.address}
    painted = await asyncio.to_thread(
        muse, "generate", "-5 degrees", cwd=tmp_path, variables=variables
    )
    status = await asyncio.to_thread(muse, "status", "--json", cwd=tmp_path, variables=variables)

    assert painted.returncode == 0, painted.stderr
    assert house.stages["text_encoder"].asked[0].texts == ["-5 degrees"]
    assert '"stages"' in status.stdout


async def test_a_proxy_does_not_come_between_a_command_and_servers_of_this_machine(
    house: House, tmp_path: Path
) -> None:
    variables = {"http_proxy": f"http://{UNREACHABLE}", "grpc_proxy": f"http://{UNREACHABLE}"}
    words = ("status", "--server", house.address)
    ended = await asyncio.to_thread(muse, *words, cwd=tmp_path, variables=variables)

    assert ended.returncode == 0, ended.stderr


def test_a_misspelt_option_is_no_prompt(tmp_path: Path) -> None:
    ended = muse("generate", "a fox", "--coutn", "3", cwd=tmp_path)
    assert ended.returncode == 2
    assert "Did you mean --count?" in ended.stdout + ended.stderr


def test_a_reader_that_goes_away_ends_a_command_without_a_traceback(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    code = "from tools.cli.main import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code, "describe", "--preset=tiny"],
        cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    os.close(write)
    assert ended.returncode in (1, 141)
    assert ended.stderr == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([""], "muse: prompt: expected a text, got an empty one"),
        (["a fox", "--count", "1000"], "muse: count: expected 1 to 16, got 1000"),
        (
            ["a fox", "--guidance-scale", "nan"],
            "muse: base.guidance_scale: expected 0 to 100, got nan",
        ),
        (
            ["a fox", "--adapter", "cat"],
            "muse: adapters[0].name: expected one of fox, owl, got 'cat'",
        ),
        (
            ["a fox", "--adapter", "fox=nan"],
            "muse: adapters[0].weight: expected -10 to 10, got nan",
        ),
        (["a fox", "--superres-steps", "10000"], "muse: superres.steps: expected 1 to 256, got"),
    ],
)
async def test_what_the_server_refuses_is_shown_in_one_line(
    house: House, tmp_path: Path, words: list[str], said: str
) -> None:
    arguments = ("generate", *words, "--server", house.address)
    check_refused(await asyncio.to_thread(muse, *arguments, cwd=tmp_path), said)
    assert files_in(tmp_path) == set()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["up", "--checkpoints", "none"], "muse: no checkpoints in none"),
        (["up", "--base-port", "70000"], "muse: base_port: expected 1 to 65531, got 70000"),
        (
            ["up", "--gateway-port", "50052"],
            "muse: gateway_port: expected 1 to 65535 except [50050, ",
        ),
        (["up", "--mesh", "data=2"], "muse: mesh: expected model=N, such as model=4, got the axis"),
        (["status", "--server", UNREACHABLE], f"muse: no orchestrator answers at {UNREACHABLE}"),
        (["describe", "--preset", "huge"], "muse: unknown preset 'huge': expected one of muse-3b"),
        (["describe", "--preset", "tiny", "--chip", "abacus"], "muse: unknown chip 'abacus'"),
    ],
)
def test_every_other_command_does_so_too(tmp_path: Path, words: list[str], said: str) -> None:
    check_refused(muse(*words, cwd=tmp_path), said)


def test_help_imports_no_jax_and_nothing_of_grpc(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom tools.cli.main import app\n"
        "try:\n    app(['generate', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'jax', 'flax', 'grpc', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "--superres-steps" in ended.stdout
