"""One network over several devices, which a process of its own makes out of one CPU."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from services.mesh import parse_mesh

ROOT = Path(__file__).parents[2]
QUICK = "--xla_backend_optimization_level=0"  # to compile, in half the time
DECODES = Path(__file__).with_name("eight_devices.py")


def run_with_eight_devices(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with eight devices."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count=8 {QUICK}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "protos")]),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize(
    ("stage", "dtype", "weights", "adapters", "rows", "devices"),
    [
        ("base", "float32", "full", "plain", 1, (1, 2, 4, 8)),
        ("superres", "float32", "full", "plain", 1, (1, 2, 4, 8)),
        # In bfloat16 sums that are split would come to other tokens.
        ("base", "bfloat16", "full", "adapters", 3, (1, 8)),
        ("superres", "float32", "int8", "adapters", 1, (1, 4)),
    ],
)
def test_any_number_of_devices_decodes_the_same_tokens(
    stage: str, dtype: str, weights: str, adapters: str, rows: int, devices: tuple[int, ...]
) -> None:
    words = (stage, dtype, weights, adapters, *map(str, (rows, *devices)))
    ended = run_with_eight_devices(str(DECODES), *words)
    assert ended.returncode == 0, ended.stderr[-2000:]
    results = {int(count): one for count, one in json.loads(ended.stdout).items()}

    assert {count: one["device"] for count, one in results.items()} == {
        count: f"cpu x{count}" for count in devices
    }
    assert {count: one["share"] for count, one in results.items()} == {
        count: 1 / count for count in devices
    }
    decodes = results[1]["tokens"]
    assert len({tuple(decode) for decode in decodes}) == len(decodes) == 4
    for count in devices:
        assert results[count]["tokens"] == decodes


@pytest.mark.parametrize(("mesh", "shards"), [("", 1), ("model=1", 1), (" model = 16 ", 16)])
def test_a_mesh_is_a_number_of_devices(mesh: str, shards: int) -> None:
    assert parse_mesh(mesh) == shards


@pytest.mark.parametrize(
    ("mesh", "said"),
    [
        ("data=2", "'data'"),
        ("4", "'4'"),
        ("model", "''"),
        ("model=", "''"),
        ("model=x", "'x'"),
        ("model=2.5", "'2.5'"),
        ("model=0", "'0'"),
        ("model=-2", "'-2'"),
        ("model=2,data=2", "'2,data=2'"),
    ],
)
def test_a_malformed_mesh_is_refused_with_its_text(mesh: str, said: str) -> None:
    with pytest.raises(ValueError, match="expected model=N") as caught:
        parse_mesh(mesh)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("stage", "mesh", "named"),
    [
        ("base", "data=2", "'data'"),
        ("base", "model=9", "model=9 takes 9 devices, .* cpu x8"),
        ("base", "model=4", "2 heads cannot be divided evenly among 4 .* model=1, model=2, got"),
        ("superres", "model=2", "1 pairs of near and far heads .* among 2 devices"),
    ],
)
def test_a_server_that_cannot_have_its_mesh_ends_with_a_line_that_says_why(
    checkpoints: Path, stage: str, mesh: str, named: str
) -> None:
    where = ("--checkpoints", str(checkpoints), "--port", "0")

    ended = run_with_eight_devices("-m", f"services.{stage}", "--mesh", mesh, *where)

    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    last = json.loads(ended.stderr.splitlines()[-1])["message"]
    assert last.startswith("cannot start: mesh: ")
    assert re.search(named, last)
