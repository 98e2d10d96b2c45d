"""The client works where nothing is installed but what the package's plain dependencies bring."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import importlib.util
from services.orchestrator.client import AsyncMuseClient, MuseClient, Unavailable

absent = ("jax", "flax", "numpy", "cyclopts", "rich", "opentelemetry")
assert not [name for name in absent if importlib.util.find_spec(name)]
try:
    MuseClient("127.0.0.1:1").generate("a fox", seed=1)
except Unavailable as error:
    print(error)
"""


def needed(name: str, found: dict[str, None]) -> dict[str, None]:
    """Adds a distribution and, without extras, all it needs."""
    if name not in found:
        found[name] = None
        for requirement in requires(name) or ():
            if "extra ==" not in requirement:
                dependency = re.match(r"[\w.-]+", requirement)
                assert dependency is not None
                try:
                    distribution(dependency[0])
                except PackageNotFoundError:  # for another platform or Python
                    continue
                needed(dependency[0].lower(), found)
    return found


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A folder with those packages and this one, and nothing else."""
    for name in needed("muse", {}):
        if name == "muse":
            continue
        packages = distribution(name)
        tops = {file.parts[0] for file in packages.files or () if ".." not in file.parts}
        for top in tops - {"__pycache__"}:
            target, link = Path(str(packages.locate_file(top))), tmp_path / top
            if target.is_dir() and link.is_dir():  # a namespace such as google, shared by several
                merge(target, link)
            elif not link.exists():
                if top == "google":
                    merge(target, link)
                else:
                    link.symlink_to(target)
    (tmp_path / "services").symlink_to(ROOT / "services")
    (tmp_path / "muse").symlink_to(ROOT / "protos" / "muse")
    return tmp_path


def merge(source: Path, into: Path) -> None:
    """Links what is in a namespace package into a folder."""
    into.mkdir(exist_ok=True)
    for entry in source.iterdir():
        if not (into / entry.name).exists():
            (into / entry.name).symlink_to(entry)


def test_the_client_needs_neither_jax_nor_flax_nor_numpy(environment: Path) -> None:
    # -S: without site-packages; -E and -s: without the environment's and the user's paths.
    program = f"import sys; sys.path.insert(0, {str(environment)!r})\n{PROGRAM}"
    ended = subprocess.run(
        [sys.executable, "-S", "-E", "-s", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=environment,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("no orchestrator answers at 127.0.0.1:1")
