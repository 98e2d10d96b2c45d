"""The folder of compiled programs, in processes of their own: JAX reads its settings once."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.runtime.server.jax_setup import prepare_jax

COMPILES = """
import sys, os
from pathlib import Path
from services.runtime.server.jax_setup import prepare_jax
import jax
folder = Path(sys.argv[1])
root = os.getuid() == 0
if root:  # nothing is forbidden to root: look at the folder as the servers' user does
    os.setresuid(65532, 65532, 0)
prepare_jax(folder)
if root:
    os.setresuid(0, 0, 0)
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
jax.jit(lambda x: x * 3 + 1)(2.0)
print(sum(name == "/jax/compilation_cache/cache_hits" for name in hits))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:  # pytest's own folders are closed to other users
        Path(made).chmod(0o755)
        inner = Path(made) / "compiled"
        inner.mkdir()
        yield inner


def in_a_new_process(folder: Path) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", COMPILES, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    return done


def hits_in_a_new_process(folder: Path) -> int:
    return int(in_a_new_process(folder).stdout)


def test_a_folder_that_can_be_written_is_filled_and_one_that_cannot_is_still_read(
    folder: Path,
) -> None:
    folder.chmod(0o777)
    assert hits_in_a_new_process(folder) == 0
    filled = sorted(folder.iterdir())
    assert filled

    folder.chmod(0o555)
    assert hits_in_a_new_process(folder) >= 1
    assert sorted(folder.iterdir()) == filled


def test_nothing_is_written_where_nothing_may_be(folder: Path) -> None:
    folder.chmod(0o555)

    assert hits_in_a_new_process(folder) == 0
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("inner", ["missing", "missing/deep"])
def test_a_folder_that_cannot_be_created_is_a_warning(folder: Path, inner: str) -> None:
    folder.chmod(0o555)

    done = in_a_new_process(folder / inner)
    assert f"cannot create {folder / inner} (Permission denied)" in done.stderr
    assert list(folder.iterdir()) == []


def test_a_server_that_only_compiles_needs_its_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"compilation_cache: cannot create .*/file"):
        prepare_jax(tmp_path / "file", required=True)


FULL = """
import logging, resource, sys
from pathlib import Path
from services.runtime.observability.logs import configure_logs
from services.runtime.server.jax_setup import prepare_jax
import jax
configure_logs("muse.test")
prepare_jax(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))  # a write fails after a few bytes
print(jax.jit(lambda x: x * 3 + 1)(2.0))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of file sizes")
def test_a_folder_on_a_full_disk_is_a_warning_and_the_next_start_compiles(folder: Path) -> None:
    def run(script: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-c", script, str(folder)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    full = run(FULL)
    assert (full.returncode, full.stdout) == (0, "7.0\n"), full.stderr
    assert "persistent compilation cache" in full.stderr
    assert '"level": "WARNING"' in full.stderr

    again = run(FULL.replace("resource.setrlimit", "(lambda *_: None)"))
    assert (again.returncode, again.stdout) == (0, "7.0\n"), again.stderr
