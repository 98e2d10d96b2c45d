"""What `muse deploy` cannot do is one line on the standard error."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.checks import rendering
from k8s.deployment import overlays
from tests.k8s.conftest import Muse
from tests.k8s.deployment.fake_api import FakeApiServer

OVERLAYS = "gke-v5e, gke-v6e, gpu, local-cpu"
ONLINE = [["explain"], ["check", "--context", "fake"]]


def test_every_overlay_has_a_name() -> None:
    assert ", ".join(overlays.names()) == OVERLAYS


@pytest.mark.parametrize("words", [["explain"], ["check"]])
def test_an_unknown_overlay_is_answered_with_those_there_are(
    api: FakeApiServer, muse: Muse, words: list[str]
) -> None:
    ended = muse(*words, "--overlay", "gke-v7")

    assert ended.error == (
        f"muse: overlay: expected one of {OVERLAYS}, or a folder with a kustomization.yaml, got "
        "'gke-v7'"
    )


def test_a_folder_that_cannot_be_rendered_says_why(muse: Muse, tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [nothing.yaml]\n")

    ended = muse("check", "--overlay", str(tmp_path))

    assert ended.status == 1
    assert ended.error.startswith(f"muse: {tmp_path}: ")
    assert "nothing.yaml" in ended.error


def test_an_overlay_without_a_namespace_is_refused(
    api: FakeApiServer, muse: Muse, tmp_path: Path
) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [all.yaml]\n")
    (tmp_path / "all.yaml").write_text("{apiVersion: v1, kind: Namespace, metadata: {name: a}}")

    ended = muse("explain", "--overlay", str(tmp_path))

    assert "expected Deployments in one namespace, got them in none" in ended.error


def test_without_kubectl_and_kustomize_it_says_how_to_get_one(
    muse: Muse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(overlays, "render", rendering.render)

    ended = muse("check", "--overlay", "local-cpu")

    assert ended.error == (
        "muse: no kubectl and no kustomize on the PATH: install one "
        "(https://kubernetes.io/docs/tasks/tools), or run make kubectl"
    )


@pytest.mark.parametrize("words", ONLINE)
def test_without_a_kubeconfig_it_says_how_to_get_one(
    muse: Muse, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))

    ended = muse(*words, "--overlay", "gke-v5e")

    assert ended.error.startswith(f"muse: expected a kubeconfig in {tmp_path}/none")
    assert "name one with KUBECONFIG" in ended.error
    assert ended.out == ""


def test_a_kubeconfig_that_is_no_yaml_is_named(
    muse: Muse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").write_text("contexts: [")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "broken"))

    ended = muse("explain", "--overlay", "gke-v5e")

    assert ended.error.startswith(f"muse: expected a kubeconfig in {tmp_path}/broken")


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("Content-Length: 5\r\n", "expected JSON of an API server at"),
        ("Content-Length: 99\r\n", "broke off"),
    ],
)
def test_an_answer_that_is_none_of_an_api_server_is_one_line(
    api: FakeApiServer, muse: Muse, monkeypatch: pytest.MonkeyPatch, head: str, said: str
) -> None:
    def answer(http: Any) -> None:
        http.wfile.write(f"HTTP/1.1 200 OK\r\n{head}\r\nhello".encode())
        http.close_connection = True

    monkeypatch.setattr(api, "answer", answer)

    ended = muse("explain", "--overlay", "gke-v5e")

    assert said in ended.error
    assert "\n" not in ended.error


@pytest.mark.parametrize("words", [["explain"], ["check"]])
def test_an_unknown_context_is_answered_with_those_there_are(
    api: FakeApiServer, muse: Muse, words: list[str]
) -> None:
    ended = muse(*words, "--overlay", "gke-v5e", "--context", "production")

    assert ended.error == "muse: context: expected one of fake, away, got 'production'"


def test_a_context_that_is_named_does_without_a_current_one(
    system: FakeApiServer, muse: Muse
) -> None:
    file = Path(os.environ["KUBECONFIG"])
    content = yaml.safe_load(file.read_text())
    del content["current-context"]
    file.write_text(yaml.safe_dump(content))

    ended = muse("explain", "--overlay", "gke-v5e", "--context", "fake")

    assert ended.out.startswith(f"context fake, {system.address}, namespace muse\n")
    assert ended.error == ""
    ended = muse("explain", "--overlay", "gke-v5e")
    assert "Expected key current-context" in ended.error


@pytest.mark.parametrize("words", [["explain"], ["check"]])
def test_an_api_server_that_is_away_is_named_with_its_context(
    api: FakeApiServer, muse: Muse, words: list[str]
) -> None:
    ended = muse(*words, "--overlay", "gke-v5e", "--context", "away")

    assert ended.out.startswith("context away, http://127.0.0.1:1")
    assert ended.error.startswith(
        "muse: the API server http://127.0.0.1:1 of the context away cannot be reached: "
    )
    assert "Connection refused" in ended.error


@pytest.mark.parametrize("words", ONLINE)
def test_credentials_that_have_expired_are_named(
    api: FakeApiServer, muse: Muse, words: list[str]
) -> None:
    api.unauthorized = True

    ended = muse(*words, "--overlay", "gke-v5e")

    assert "the cluster of the context fake does not know you (401)" in ended.error
    assert ended.status == 1


def test_what_one_may_not_read_is_named(system: FakeApiServer, muse: Muse) -> None:
    system.forbidden = {("list", "pods")}

    ended = muse("explain", "--overlay", "gke-v5e")

    assert ended.error.startswith("muse: you may not list pods in namespace muse (403): ask for")


def test_an_api_server_that_is_unwell_is_named(system: FakeApiServer, muse: Muse) -> None:
    system.unwell = {("list", "deployments")}

    ended = muse("explain", "--overlay", "gke-v5e")

    assert "refused to list deployments.apps in namespace muse (503): etcdserver" in ended.error


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("kubernetes", 'needs kubernetes, which is not installed: install the extra "discovery"'),
        ("k8s", "deploy needs the folder k8s/ of the repository"),
    ],
)
def test_a_package_that_is_not_installed_is_named(
    missing: str, said: str, api: FakeApiServer, tmp_path: Path
) -> None:
    code = (
        "import sys\n"
        f"sys.modules[{missing!r}] = None\n"
        "from tools.cli.main import main\n"
        "sys.argv = ['muse', 'deploy', 'explain', '--overlay', 'gke-v5e']\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert ended.returncode == 1
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_it_imports_no_jax(api: FakeApiServer, rendered: Any) -> None:
    code = (
        "import sys\n"
        "from tools.cli.main import main\n"
        "sys.argv = ['muse', 'deploy', 'explain', '--overlay', 'gke-v5e']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as ended:\n"
        "    assert ended.code == 1, ended\n"
        "assert not {'jax', 'flax', 'torch'} & set(sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert ended.returncode == 0, ended
    assert "is not there" in ended.stdout
