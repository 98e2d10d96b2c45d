"""The commands that k8s/README.md gives, as far as they can be tried without a cluster."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.k8s.conftest import Muse

README = Path("k8s/README.md")
HEADING = "## Applying, waiting, logs and scaling"
UNREACHABLE = "http://127.0.0.1:1"


def commands(program: str) -> list[str]:
    """Returns the commands of a program in the block below the heading, without comments."""
    (section,) = re.findall(rf"{HEADING}\n(.*?)\n## ", README.read_text(), re.DOTALL)
    lines = [line[4:].partition(" # ")[0].strip() for line in section.splitlines()]
    parts = [part.strip() for line in lines for part in line.split("|")]
    return [part for part in parts if part.startswith(f"{program} ")]


@pytest.fixture
def unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kubeconfig whose only cluster does not answer."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "away",
        "contexts": [{"name": "away", "context": {"cluster": "away", "user": "reader"}}],
        "clusters": [{"name": "away", "cluster": {"server": UNREACHABLE}}],
        "users": [{"name": "reader", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(content))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))


@pytest.mark.parametrize("command", commands("kubectl"))
def test_kubectl_understands_each_command_and_only_misses_the_cluster(
    command: str, unreachable: None
) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on the PATH")
    namespace = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "muse"}})
    ended = subprocess.run(
        shlex.split(command), input=namespace, capture_output=True, text=True, timeout=60
    )

    if "--dry-run=client" in command:
        assert yaml.safe_load(ended.stdout)["metadata"]["name"] == "muse"
    else:
        assert ended.returncode != 0
        assert "127.0.0.1:1" in ended.stderr, ended.stderr
        assert "unknown" not in ended.stderr


@pytest.mark.parametrize("command", commands("muse deploy"))
def test_muse_deploy_understands_each_command(command: str, unreachable: None, muse: Muse) -> None:
    words = shlex.split(command.replace("CONTEXT", "away"))[2:]

    ended = muse(*words)

    if "away" in words or words[0] == "explain":
        assert f"the API server {UNREACHABLE} of the context away cannot" in ended.error
    else:
        assert ended.status == 0, ended


def test_the_block_has_every_kind_of_command() -> None:
    found = " ".join(commands("kubectl"))
    assert all(
        f" {verb} " in found for verb in ("apply", "diff", "rollout", "get", "logs", "scale")
    )
