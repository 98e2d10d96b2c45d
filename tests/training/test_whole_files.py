"""A file or folder is written whole or not at all, whoever else writes it."""

import socket
from pathlib import Path

import pytest

from training.whole_files import whole_file, whole_folder


def test_hosts_whose_processes_have_one_id_do_not_write_into_each_other_s_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "new" / "index"
    with whole_file(file) as first:
        first.write_text("half of the first")
        monkeypatch.setattr(socket, "gethostname", lambda: "another host")
        with whole_file(file) as second:
            second.write_text("second")
        assert file.read_text() == "second"
        first.write_text("first")
    assert file.read_text() == "first"
    assert list(file.parent.iterdir()) == [file]


def test_an_error_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "index"
    file.write_text("before")

    def write_half() -> None:
        with whole_file(file) as part:
            part.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_is_there_once_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "checkpoint"
    with whole_folder(folder) as part:
        (part / "weights").write_text("whole")
        assert not folder.exists()
    assert (folder / "weights").read_text() == "whole"
    assert list(folder.parent.iterdir()) == [folder]

    with (
        pytest.raises(ValueError, match=r"expected a new folder to write, got .*checkpoint"),
        whole_folder(folder),
    ):
        pass


def test_an_error_leaves_no_folder_and_nothing_beside_it(tmp_path: Path) -> None:
    def write_half() -> None:
        with whole_folder(tmp_path / "checkpoint") as part:
            (part / "weights").write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert list(tmp_path.iterdir()) == []
