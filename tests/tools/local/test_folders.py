"""Where compiled programs are kept."""

from pathlib import Path

import pytest

from tools.local.folders import compiled_folder

VARIABLES = ("MUSE_COMPILATION_CACHE", "XDG_CACHE_HOME")


def test_compiled_programs_lie_where_the_environment_says_or_at_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/fox")
    assert compiled_folder(tmp_path) == Path("/home/fox/.cache/muse/compiled")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert compiled_folder(tmp_path) == Path("/cache/muse/compiled")
    monkeypatch.setenv("MUSE_COMPILATION_CACHE", "/here")
    assert compiled_folder(tmp_path) == Path("/here")


def test_a_user_without_home_has_a_folder_of_the_servers_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert compiled_folder(tmp_path) == tmp_path / "compiled"


@pytest.mark.parametrize("cache", ["", "cache", "./cache", "~/cache"])
def test_a_cache_folder_that_is_not_absolute_is_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: str
) -> None:
    monkeypatch.delenv("MUSE_COMPILATION_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/home/fox")
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    assert compiled_folder(tmp_path) == Path("/home/fox/.cache/muse/compiled")


def test_a_home_that_is_not_absolute_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "fox")
    assert compiled_folder(tmp_path) == tmp_path / "compiled"
