"""The Containerfile and the script it runs, as far as no engine and no package index is needed."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from k8s.checks.objects import Objects
from k8s.checks.rendering import Manifest

ROOT = Path(__file__).parents[2]
LINES = [
    line.split(" ", 1)
    for line in (ROOT / "Containerfile").read_text().splitlines()
    if line and not line.startswith("#")
]
SERVED = ("gateway", "orchestrator", "text-encoder", "tokenizer", "base", "superres")


def instructions(word: str) -> list[str]:
    return [rest for first, rest in LINES if first == word]


def stages() -> dict[str, tuple[str, list[list[str]]]]:
    """Returns the parent and the instructions of every stage of the build, by name."""
    found: dict[str, tuple[str, list[list[str]]]] = {}
    for word, rest in LINES:
        if word == "FROM":
            parent, _, name = rest.partition(" AS ")
            found[name] = (parent, [])
        elif found:
            list(found.values())[-1][1].append([word, rest])
    return found


def lineage(name: str) -> Iterator[list[str]]:
    """Yields the instructions of a target, its parents' first."""
    parent, own = stages()[name]
    if parent in stages():
        yield from lineage(parent)
    yield from own


@pytest.mark.parametrize("name", SERVED)
def test_a_target_starts_what_its_deployment_starts(name: str) -> None:
    module = name.replace("-", "_")
    words = dict(lineage(name))

    assert json.loads(words["CMD"]) == ["python", "-m", f"services.{module}"]
    assert words["USER"] == "65532:65532"


def test_the_manifests_images_are_targets(rendered: Callable[[str], list[Manifest]]) -> None:
    for folder in (
        "k8s/overlays/local-cpu",
        "k8s/overlays/gke-v5e",
        "k8s/training",
        "k8s/training/precompute",
    ):
        for each in Objects(rendered(folder)).workloads():
            (box,) = each.pod["containers"]
            name = box["image"].rpartition("/")[2].partition(":")[0].removeprefix("muse-")
            words = dict(lineage(name))
            python, flag, module = json.loads(words["CMD"])[:3]
            assert box["command"][:2] == [python, flag]
            assert f"{box['command'][2]}.".startswith(f"{module}.")
            listened = {port["name"]: port["containerPort"] for port in box.get("ports", ())}
            port = listened.get("grpc", listened.get("http", words.get("EXPOSE")))
            assert str(port) == words.get("EXPOSE", "None")


def test_what_is_copied_is_there_and_sent_to_the_builder() -> None:
    sent = {
        line.removeprefix("!").partition("/")[0]
        for line in (ROOT / ".containerignore").read_text().splitlines()
        if line.startswith("!")
    }
    for copied in instructions("COPY"):
        if copied.startswith("--from="):
            assert copied.removeprefix("--from=").partition(" ")[0] in stages()
            continue
        for source in copied.split()[:-1]:
            assert (ROOT / source).exists()
            assert source.partition("/")[0] in sent


def test_the_base_image_has_a_version() -> None:
    (default,) = [line for line in instructions("ARG") if line.startswith("PYTHON_IMAGE=")]

    assert default.rpartition(":")[2] not in ("", "latest")


@pytest.mark.parametrize(
    ("lock", "has", "has_not"),
    [
        ("orchestrator", "grpcio", "jax"),
        ("gateway", "fastapi", "jax"),
        ("serve", "jax", "libtpu"),
        ("tpu", "libtpu", "jax-cuda13-plugin"),
        ("cuda", "jax-cuda13-plugin", "libtpu"),
        ("train", "optax", "libtpu"),
        ("train-tpu", "libtpu", "pytest"),
    ],
)
def test_a_lock_has_what_its_target_needs_and_no_more(lock: str, has: str, has_not: str) -> None:
    lines = (ROOT / f"requirements/{lock}.lock").read_text().splitlines()
    packages = {line.partition("==")[0] for line in lines if "==" in line and line[0] not in " #"}

    assert has in packages
    assert has_not not in packages


@pytest.mark.parametrize("wrong", [("orchestrator", "tpu"), ("stage", "gpu"), ("base", "cpu")])
def test_a_target_that_there_is_not_is_named(wrong: tuple[str, str], tmp_path: Path) -> None:
    script = ["sh", str(ROOT / "scripts/install_target.sh"), *wrong, str(tmp_path / "muse")]
    done = subprocess.run(script, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert " ".join(wrong) in done.stderr
    assert not (tmp_path / "muse").exists()
