"""A file is written whole or not at all, whoever else writes it."""

import socket
from pathlib import Path

import pytest

from training.whole_files import whole_file


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
