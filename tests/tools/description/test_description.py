"""What `muse describe` says of a preset."""

import json
import subprocess
import sys

import pytest

from services.presets import preset
from tools.description.chips import CHIPS, chip
from tools.description.description import SystemDescription, describe
from tools.description.rendering import scaled

# docs/method.md, point 1.
BASE_UNMASKED = "1 2 2 4 5 6 7 8 9 9 11 11 13 13 13 14 15 16 15 16 17 16 17 16"
SUPERRES_UNMASKED = "79 233 379 509 621 708 768 799"
STAGE_KEYS = {
    "configuration",
    "parameters",
    "bytes_bf16",
    "token_grid",
    "flops_per_image",
    "least_bytes_per_image",
    "floor_ms",
}


@pytest.fixture(scope="module")
def muse_3b() -> SystemDescription:
    return describe(preset("muse-3b"), chip("h200"))


def run_python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120
    )


def run_muse(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_python("from tools.cli.main import main; main()", *arguments)


def test_muse_3b_has_the_parameters_of_the_design(muse_3b: SystemDescription) -> None:
    stages = muse_3b.stages
    assert stages["base"].parameters_by_part["blocks"] == pytest.approx(3.22e9, rel=0.005)
    superres = stages["superres"].parameters_by_part
    assert superres["blocks"] + superres["low_blocks"] == pytest.approx(0.74e9, rel=0.005)
    assert stages["text_encoder"].parameters == pytest.approx(4.76e9, rel=0.005)


def test_muse_632m_differs_from_muse_3b_in_its_base_alone(muse_3b: SystemDescription) -> None:
    small = describe(preset("muse-632m"), chip("h200"))
    assert small.stages["base"].parameters == pytest.approx(0.632e9, rel=0.02)
    for name in ("text_encoder", "superres", "tokenizer"):
        assert small.stages[name] == muse_3b.stages[name]


def test_the_steps_unmask_what_the_design_says(muse_3b: SystemDescription) -> None:
    stages = muse_3b.to_json()["stages"]
    assert " ".join(map(str, stages["base"]["unmasked_per_step"])) == BASE_UNMASKED
    assert " ".join(map(str, stages["superres"]["unmasked_per_step"])) == SUPERRES_UNMASKED


@pytest.mark.parametrize("name", ["tiny", "demo"])
def test_every_step_unmasks_something_and_all_of_them_everything(name: str) -> None:
    stages = describe(preset(name), chip("cpu")).to_json()["stages"]
    for stage in (stages["base"], stages["superres"]):
        height, width = stage["token_grid"]
        assert min(stage["unmasked_per_step"]) >= 1
        assert sum(stage["unmasked_per_step"]) == height * width


def test_the_whole_is_the_sum_of_its_stages(muse_3b: SystemDescription) -> None:
    written = muse_3b.to_json()
    for key in ("parameters", "bytes_bf16", "flops_per_image", "least_bytes_per_image", "floor_ms"):
        assert written[key] == pytest.approx(sum(each[key] for each in written["stages"].values()))


def test_a_decode_reads_its_weights_at_every_step_and_its_context_once() -> None:
    tiny = describe(preset("tiny"), chip("cpu")).stages["base"]
    # 16 wide, 1 layer of 2 heads, MLP 32, 32 codes, 4x4 tokens, 32 text positions; 16 steps.
    cached = 2 * 1 * 32 * 16
    context = 16 * 16 + 16 + 16 * 32 + 8 + 32 * 16 + cached
    self_attention, cross_attention = 16 * 48 + 16 * 16 + 8 + 8, 16 * 16 + 16 * 16 + 8
    block = 3 * 16 + self_attention + cross_attention + 2 * 16 * 32
    head = 16 + 16 * 16 + 16 + 16 * 32 + 32
    positions, looked_up = 2 * 4 * 16, 16 * 16
    step = block + head + positions + looked_up + cached
    assert tiny.cost.least_bytes_per_image == 2 * (context + 16 * step) + 4 * 16


@pytest.mark.parametrize("name", CHIPS)
def test_a_floor_is_the_longer_of_arithmetic_and_traffic(name: str) -> None:
    device = chip(name)
    flops, traffic = int(device.peak_flops_per_s), int(device.bandwidth_bytes_per_s)
    assert device.floor_ms(2 * flops, traffic) == pytest.approx(2000)
    assert device.floor_ms(flops, 3 * traffic) == pytest.approx(3000)


def test_amounts_have_three_digits_and_a_prefix() -> None:
    assert [scaled(amount, "B") for amount in (0, 12, 999, 6_535_528_448, 138e9, 71.7e12)] == [
        "0 B",
        "12 B",
        "999 B",
        "6.54 GB",
        "138 GB",
        "71.7 TB",
    ]


def test_the_command_prints_json_with_every_key() -> None:
    run = run_muse("describe", "--preset", "muse-3b", "--chip", "v5e", "--json")
    assert run.returncode == 0, run.stderr
    written = json.loads(run.stdout)
    assert (written["preset"], written["chip"]["name"]) == ("muse-3b", "v5e")
    assert set(written["stages"]) == {"text_encoder", "tokenizer", "base", "superres"}
    tokenizer = written["stages"]["tokenizer"]
    for stage in (*written["stages"].values(), tokenizer["low"], tokenizer["high"]):
        assert set(stage) >= STAGE_KEYS
        assert stage["bytes_bf16"] == 2 * stage["parameters"]
        assert stage["floor_ms"] > 0
    assert tokenizer["low"]["token_grid"] == [16, 16]
    assert tokenizer["token_grid"] == tokenizer["high"]["token_grid"] == [64, 64]
    assert written["stages"]["text_encoder"]["token_grid"] is None


def test_the_command_prints_tables_for_people() -> None:
    run = run_muse("describe", "--preset", "tiny", "--chip", "cpu")
    assert run.returncode == 0, run.stderr
    for shown in ("text_encoder", "superres", "4x4", "Tokens unmasked per step", "hidden=16"):
        assert shown in run.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--preset", "muse-9b"), "unknown preset 'muse-9b': expected one of muse-3b"),
        (("--preset", "tiny", "--chip", "abacus"), "unknown chip 'abacus': expected one of h200"),
    ],
)
def test_an_unknown_name_is_one_line_and_exit_1(arguments: tuple[str, ...], expected: str) -> None:
    run = run_muse("describe", *arguments)
    assert run.returncode == 1
    assert expected in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


def test_help_names_describe_and_imports_no_jax() -> None:
    program = (
        "import sys\n"
        "from tools.cli.main import app\n"
        "app(['--help'], result_action='return_value')\n"
        "assert 'jax' not in sys.modules, 'help imported JAX'\n"
    )
    run = run_python(program)
    assert run.returncode == 0, run.stderr
    assert "describe" in run.stdout
