"""What CI and a release say of packages and files: known weaknesses, and where files come from."""

import hashlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scripts import audit_lock, provenance

WHEN = datetime(2026, 11, 29, 20, 0, tzinfo=UTC)


def test_provenance_names_every_file_of_a_release_by_its_digest(tmp_path: Path) -> None:
    (tmp_path / "sbom").mkdir()
    (tmp_path / "a.whl").write_bytes(b"wheel")
    (tmp_path / "sbom" / "serve.cdx.json").write_bytes(b"{}")

    made = provenance.statement(tmp_path, builder="https://builds", commit="c0ffee", now=WHEN)

    assert {each["name"]: each["digest"]["sha256"] for each in made["subject"]} == {
        "a.whl": hashlib.sha256(b"wheel").hexdigest(),
        "sbom/serve.cdx.json": hashlib.sha256(b"{}").hexdigest(),
    }
    built, run = made["predicate"]["buildDefinition"], made["predicate"]["runDetails"]
    lock = Path("requirements/serve.lock")
    content = (provenance.ROOT / lock).read_bytes()
    assert {"name": str(lock), "digest": {"sha256": hashlib.sha256(content).hexdigest()}} in built[
        "resolvedDependencies"
    ]
    assert built["resolvedDependencies"][0]["digest"] == {"gitCommit": "c0ffee"}
    assert run["builder"]["id"] == "https://builds"
    assert run["metadata"]["finishedOn"] == "2026-11-29T20:00:00Z"


def test_a_release_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected the files of a release in .*, got none"):
        provenance.statement(tmp_path, builder="b", commit="c", now=WHEN)


def answer(
    monkeypatch: pytest.MonkeyPatch, folder: Path, dependencies: object, error: str = ""
) -> None:
    """Puts a program in pip-audit's place that answers with given packages."""
    program = folder / "pip-audit"
    text = json.dumps({"dependencies": dependencies}) if dependencies is not None else ""
    program.write_text(f"#!{sys.executable}\nimport sys\nprint({text!r})\nsys.exit({error!r})\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))


SAFE = {"name": "numpy", "version": "2.4.6", "vulns": []}
SKIPPED = {"name": "jax", "skip_reason": "Dependency not found on PyPI"}
WEAK = {"name": "jinja2", "version": "2.10", "vulns": [{"id": "PYSEC-2019-217"}]}


@pytest.mark.parametrize(
    ("dependencies", "error", "sentence"),
    [
        ([SAFE, SKIPPED], "", "no known weakness of 1 of 2 packages"),
        ([SKIPPED], "", "NOT RUN, the database of weaknesses knows none of its packages"),
        (None, "requests.exceptions.ConnectionError", "NOT RUN, no database of weaknesses answers"),
    ],
)
def test_an_audit_says_what_it_looked_at(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    dependencies: object,
    error: str,
    sentence: str,
) -> None:
    answer(monkeypatch, tmp_path, dependencies, error)
    assert audit_lock.audit(Path("a.lock")) == f"audit of a.lock: {sentence}"


@pytest.mark.parametrize(
    ("dependencies", "error", "sentence"),
    [([SAFE, WEAK], "", "PYSEC-2019-217"), (None, "no such option", "pip-audit failed")],
)
def test_a_known_weakness_and_a_broken_audit_fail(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    dependencies: object,
    error: str,
    sentence: str,
) -> None:
    answer(monkeypatch, tmp_path, dependencies, error)
    with pytest.raises(SystemExit, match=sentence):
        audit_lock.audit(Path("a.lock"))
