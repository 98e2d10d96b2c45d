"""A file that changes is read again; one that vanishes or is damaged leaves what it said last."""

import logging
from pathlib import Path

import pytest

from services.orchestrator.callers.watched_file import WatchedFile


def number(text: str) -> int:
    if not text.strip().isdecimal():
        raise ValueError("expected a number")
    return int(text)


def test_a_change_is_read(tmp_path: Path) -> None:
    path = tmp_path / "number"
    path.write_text("1")
    file = WatchedFile(path, number)
    path.write_text("23")
    assert file.value == 1
    file.refresh()
    assert file.value == 23


def test_a_link_that_kubernetes_replaces_is_followed(tmp_path: Path) -> None:
    for version, text in (("old", "1"), ("new", "2")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "number").write_text(text)
    data, link = tmp_path / "..data", tmp_path / "..data_tmp"
    data.symlink_to("old")
    (tmp_path / "number").symlink_to("..data/number")
    file = WatchedFile(tmp_path / "number", number)

    link.symlink_to("new")
    link.replace(data)
    file.refresh()
    assert file.value == 2


@pytest.mark.parametrize("damage", ["vanishes", "does not parse", "is no text"])
def test_the_last_good_content_stays_and_one_line_says_why(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "number"
    path.write_text("1")
    file = WatchedFile(path, number)

    if damage == "vanishes":
        path.unlink()
    else:
        path.write_bytes(b"one" if damage == "does not parse" else b"\xff\xfe\x00")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            file.refresh()
    assert file.value == 1
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert str(path) in record.getMessage()
    assert "its last good content stays in force" in record.getMessage()

    path.write_text("45")
    file.refresh()
    assert file.value == 45


def test_a_file_that_is_not_there_at_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none cannot be read: No such file"):
        WatchedFile(tmp_path / "none", number)
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        WatchedFile(tmp_path, number)
