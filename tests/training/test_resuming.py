"""Records and logs of a run's folder."""

from pathlib import Path

import pytest

from training.resuming import check_same_run, open_log


@pytest.mark.parametrize(
    ("before", "after"), [(None, "b\n"), ("", "b\n"), ("a\n", "a\nb\n"), ("a", "a\nb\n")]
)
def test_what_is_appended_to_a_log_is_a_line_of_its_own(
    before: str | None, after: str, tmp_path: Path
) -> None:
    file = tmp_path / "log"
    if before is not None:
        file.write_text(before)
    with open_log(file) as log:
        log.write("b\n")
    assert file.read_text() == after


def test_a_log_of_any_length_is_opened_without_reading_it(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("wb") as log:
        log.truncate(2**40)  # a hole, which takes no room on the disk
    open_log(file).close()
    assert file.stat().st_size == 2**40 + 1


def test_a_record_that_was_not_written_whole_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(file: Path, text: str) -> None:
        file.write_bytes(text.encode()[:5])
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", write_half)
        with pytest.raises(OSError, match="disk full"):
            check_same_run(tmp_path / "data.json", {"examples": 3})
    assert list(tmp_path.iterdir()) == []
    check_same_run(tmp_path / "data.json", {"examples": 4})
