"""The TPU compiler compiles a step where libtpu is, and is asked for where it is not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LIBRARY = os.environ.get("MUSE_TEST_LIBTPU")  # not TPU_LIBRARY_PATH: JAX would look for a TPU


def compile_stage(
    *flags: str, library: str | None, stage: str = "base"
) -> "subprocess.CompletedProcess[str]":
    """Runs the command on a stage of the smallest system."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TPU_LIBRARY_PATH", None)
    if library is not None:
        environment["TPU_LIBRARY_PATH"] = library
    return subprocess.run(
        [sys.executable, "-m", "training", "compile", stage, "--preset", "tiny", *flags],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.skipif(LIBRARY is None, reason="MUSE_TEST_LIBTPU names no libtpu.so")
def test_a_step_compiles_for_a_topology() -> None:
    compiled = compile_stage("--topology", "v5e:2x2", "--batch", "8", library=LIBRARY)
    assert compiled.returncode == 0, compiled.stderr
    lines = compiled.stdout.splitlines()
    assert lines[0].startswith("4 x TPU v5 lite, compiled in ")
    assert any(line.startswith("  all-gather ") for line in lines)


@pytest.mark.skipif(LIBRARY is None, reason="MUSE_TEST_LIBTPU names no libtpu.so")
@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--topology", "v5e:77x3"), "topology 'v5e:77x3' cannot be compiled for"),
        (("--topology", "v5e:2x2", "--batch", "6"), "a batch of 6 cannot be divided into"),
        (("--topology", "v5e:2x2", "--mesh", "fsdp=3"), "mesh: fsdp=3 takes 3 devices"),
    ],
)
def test_what_cannot_be_compiled_for_is_one_sentence(flags: tuple[str, ...], sentence: str) -> None:
    refused = compile_stage(*flags, library=LIBRARY)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith(f"error: {sentence}")


@pytest.mark.skipif(LIBRARY is None, reason="MUSE_TEST_LIBTPU names no libtpu.so")
def test_a_tokenizer_compiles_with_its_layers_computed_again() -> None:
    flags = "--topology", "v5e:2x2", "--batch", "4", "--remat", "layer"
    compiled = compile_stage(*flags, library=LIBRARY, stage="tokenizer-low")
    assert compiled.returncode == 0, compiled.stderr
    assert "all-gather" not in compiled.stdout  # the parameters are not divided


def test_without_libtpu_the_message_says_how_to_get_it() -> None:
    refused = compile_stage("--topology", "v5e:2x2", library=None)
    assert refused.returncode == 1
    assert "libtpu from `pip install -e '.[tpu]'`" in refused.stderr.splitlines()[-1]
