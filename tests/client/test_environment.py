"""The client's wheel works where nothing is installed but the packages that it names."""

import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[2] / "client"
PROGRAM = """
import importlib.util
from muse_client import AsyncMuseClient, MuseClient, Unavailable

absent = ("jax", "flax", "numpy", "cyclopts", "rich", "opentelemetry", "services", "tools")
assert not [name for name in absent if importlib.util.find_spec(name)]
try:
    MuseClient("127.0.0.1:1").generate("a fox", seed=1)
except Unavailable as error:
    print(error)
"""


TYPED_PROGRAM = """
from muse_client import Done, GeneratedImage, MuseClient

with MuseClient() as muse:
    images: list[GeneratedImage] = muse.generate("a fox", seed=1)
    seconds = [event.total_s for event in muse.events("a fox") if isinstance(event, Done)]
    muse.status().stages[0].status.version.upper()
    muse.generate("a fox", seed="one")
"""
WRONG_TYPE = (
    'program.py:8: error: Argument "seed" to "generate" of "MuseClient" has incompatible type'
)


def add_needed(requirement: str, found: set[str]) -> None:
    """Adds a requirement's distribution and, without extras, all it needs."""
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None
    try:
        distribution(name[0])
    except PackageNotFoundError:  # for another platform or Python
        return
    if name[0].lower() not in found:
        found.add(name[0].lower())
        for each in requires(name[0]) or ():
            if "extra ==" not in each:
                add_needed(each, found)


def link(source: Path, into: Path) -> None:
    """Links a package into a folder; a namespace such as google is shared by several."""
    if source.is_dir() and (into.is_dir() or source.name == "google"):
        into.mkdir(exist_ok=True)
        for entry in source.iterdir():
            link(entry, into / entry.name)
    elif not into.exists():
        into.symlink_to(source)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, check=True, capture_output=True, cwd=CLIENT)
    (built,) = folder.iterdir()
    return built


@pytest.fixture
def environment(wheel: Path, tmp_path: Path) -> Path:
    """A folder with the wheel and the packages that it needs, and nothing else."""
    install(wheel, tmp_path)
    return tmp_path


def install(wheel: Path, folder: Path, *extras: str) -> None:
    """Puts the wheel and the packages that it and its extras need into a folder."""
    needed: set[str] = set()
    project = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    for requirement in project["dependencies"] + [
        each for name in extras for each in optional[name]
    ]:
        add_needed(requirement, needed)
    zipfile.ZipFile(wheel).extractall(folder)
    for name in needed:
        packages = distribution(name)
        tops = {file.parts[0] for file in packages.files or () if ".." not in file.parts}
        for top in tops - {"__pycache__"}:
            link(Path(str(packages.locate_file(top))), folder / top)


def test_the_client_needs_neither_jax_nor_numpy_nor_the_servers(environment: Path) -> None:
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


def test_the_client_and_a_program_of_it_pass_mypy_strict(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    install(wheel, packages, "types")
    (tmp_path / "program.py").write_text(TYPED_PROGRAM)
    mypy = [sys.executable, "-m", "mypy", "--strict", f"--python-executable={python}"]

    for target in (["-p", "muse_client"], ["program.py"]):
        ended = subprocess.run(
            [*mypy, f"--cache-dir={tmp_path / 'cache'}", *target],
            capture_output=True, text=True, cwd=tmp_path, timeout=300,
        )  # fmt: skip
        expected = WRONG_TYPE if target == ["program.py"] else "Success: no issues found"
        assert expected in ended.stdout, ended.stdout + ended.stderr
        assert ended.stdout.count("error:") == (target == ["program.py"])


def test_the_wheel_is_typed_and_holds_the_stubs_of_the_public_api_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert {"muse_client/py.typed", "muse/py.typed"} <= set(names)
    packages = {"/".join(name.split("/")[:2]) for name in names if name.startswith("muse/")}
    assert packages == {"muse/py.typed", "muse/common", "muse/orchestrator"}
