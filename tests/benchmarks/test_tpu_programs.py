"""The TPU compiler compiles what servers do where libtpu is, and is asked for where it is not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.description.chips import chip
from tools.description.compiled import read_compiled

ROOT = Path(__file__).parents[2]
LIBRARY = os.environ.get("MUSE_TEST_LIBTPU")  # not TPU_LIBRARY_PATH: JAX would look for a TPU
with_libtpu = pytest.mark.skipif(LIBRARY is None, reason="MUSE_TEST_LIBTPU names no libtpu.so")


def tpu_programs(
    *flags: str, library: str | None, preset: str = "tiny", cache: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Runs the benchmark."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    if cache is not None:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    environment.pop("TPU_LIBRARY_PATH", None)
    if library is not None:
        environment["TPU_LIBRARY_PATH"] = library
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.tpu_programs", "--preset", preset, *flags],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@with_libtpu
def test_every_program_of_a_small_system_compiles_for_a_v5e_and_has_nothing_that_should_not_be(
    tmp_path: Path,
) -> None:
    file = tmp_path / "programs.json"
    compiled = tpu_programs("--topology", "v5e:1x1", "--json", str(file), library=LIBRARY)

    assert compiled.returncode == 0, compiled.stderr
    assert "tiny on a device of v5e:1x1, 16 GB" in compiled.stdout
    read = read_compiled(file, preset="tiny", chip=chip("v5e"))
    assert {*read.stages} == {"text_encoder", "tokenizer", "base", "superres"}
    programs = json.loads(file.read_text())["topologies"]["v5e:1x1"]
    pool = ["advance", "context", "empty", "admit", "read", "release"]
    assert [(each["stage"], each["name"]) for each in programs] == [
        ("text_encoder", "embed 16 tokens"),
        ("text_encoder", "embed 32 tokens"),
        *((stage, name) for stage in ("base", "superres") for name in pool),
        *(
            ("tokenizer", f"{kind} {name}")
            for name in ("low", "high")
            for kind in ("encode", "decode")
        ),
    ]
    for each in programs:
        findings = each["findings"]
        assert (findings["copies"], findings["loops"], findings["host_calls"]) == ([], [], [])
        # An encoder's tokens depend on products that no device rounds; nothing else has them.
        assert bool(findings["float32_products"]) == each["name"].startswith("encode")
        assert each["peak_bytes"] > 0
        assert each["bytes_moved"] > 0


@with_libtpu
def test_another_process_finds_a_compiled_program_by_its_key(tmp_path: Path) -> None:
    def keys(*flags: str) -> set[str]:
        compiled = tpu_programs("--stage", "text_encoder", *flags, library=LIBRARY, cache=tmp_path)
        assert compiled.returncode == 0, compiled.stderr
        return {file.name for file in tmp_path.glob("*-cache")}

    kept = keys()
    assert len(kept) == 2  # lengths of 16 and of 32 tokens
    assert keys() == kept
    assert len(keys("--max-batch-size", "4") - kept) == 2


@with_libtpu
def test_devices_that_share_a_stage_hold_a_part_of_it_each(tmp_path: Path) -> None:
    arguments = []
    for mesh in ("", "model=2"):
        file = tmp_path / f"{mesh}.json"
        flags = ("--topology", "v5e:2x2", "--stage", "base", "--mesh", mesh, "--json", str(file))
        compiled = tpu_programs(*flags, library=LIBRARY)
        assert compiled.returncode == 0, compiled.stderr
        advance = json.loads(file.read_text())["topologies"]["v5e:2x2"][0]
        assert (advance["stage"], advance["name"]) == ("base", "advance")
        assert advance["findings"]["copies"] == []
        arguments.append(advance["argument_bytes"])
    assert arguments[1] < 0.8 * arguments[0]


@with_libtpu
@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--topology", "v5e:77x3"), "topology 'v5e:77x3' cannot be compiled for"),
        (("--topology", "v5p:1x1x1"), "unknown chip 'v5p': expected one of"),
        (
            ("--topology", "v5e:2x2", "--stage", "base", "--mesh", "model=8"),
            "mesh: model=8 takes 8 devices, expected no more than the host has: TPU v5 lite x4",
        ),
        (
            ("--stage", "text_encoder", "--max-batch-size", "3000000"),
            "v5e:1x1, text_encoder, embed 16 tokens: expected a program that fits a TPU v5 lite, "
            "got one that takes ",
        ),
    ],
)
def test_what_cannot_be_compiled_is_one_sentence(flags: tuple[str, ...], sentence: str) -> None:
    refused = tpu_programs(*flags, library=LIBRARY)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith(f"error: {sentence}")


def test_a_mesh_is_of_base_and_superres() -> None:
    refused = tpu_programs("--mesh", "model=4", library=None)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == (
        "error: mesh: model=4 shares base and superres, expected --stage base, --stage superres or "
        "both, got text_encoder, tokenizer as well"
    )


def test_a_preset_that_is_not_there_is_one_sentence() -> None:
    refused = tpu_programs(library=None, preset="muse-4b")
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("error: unknown preset 'muse-4b': expected")


def test_without_libtpu_the_message_says_how_to_get_it() -> None:
    refused = tpu_programs(library=None)
    assert refused.returncode == 1
    assert "libtpu from `pip install -e '.[tpu]'`" in refused.stderr.splitlines()[-1]
