"""One file has the version; wheels, servers, command line, images and changelog agree with it."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from muse_client import __version__

from services.runtime.version import package_version
from services.stages import ORCHESTRATOR, STAGES

ROOT = Path(__file__).parents[1]
TAG = re.compile(r"newTag: (\S+)|-t muse-[\w-]+:(\S+)")


@pytest.mark.parametrize("project", [ROOT, ROOT / "client"], ids=["muse", "muse-client"])
def test_both_wheels_have_the_version_of_the_file(project: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "version"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    assert built.stdout.strip() == __version__


def test_servers_report_the_version_of_the_file() -> None:
    assert package_version() == __version__, "install this checkout again: make setup"


COMMAND_LINES = (
    "tools.cli.main",
    *(f"services.{name}.__main__" for name in (*STAGES, ORCHESTRATOR)),
    *(f"training.{name}__main__" for name in ("", "evaluation.", "precompute.")),
    *(f"training.{name}__main__" for name in ("data.", "perceptual.")),
)


@pytest.mark.parametrize("module", COMMAND_LINES)
def test_every_command_line_prints_the_version(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(module).app(["--version"])
    assert not ended.value.code
    assert capsys.readouterr().out.strip() == __version__


def test_the_newest_release_in_the_changelog_is_the_version() -> None:
    releases = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert releases[0] == __version__


def test_every_image_tag_in_the_manifests_is_the_version() -> None:
    files = [ROOT / "Containerfile", *(ROOT / "k8s").rglob("kustomization.yaml")]
    tags = [
        (file.name, next(filter(None, match.groups())))
        for file in files
        for match in TAG.finditer(file.read_text())
    ]
    assert len(tags) > 20
    assert [tag for tag in tags if not re.fullmatch(rf"{__version__}(-\w+)?", tag[1])] == []
