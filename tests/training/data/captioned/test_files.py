"""Every kind of file gives the same examples, on this machine and in a bucket."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.data.captioned.conftest import OpenReader
from tests.training.data.captioned.drawn import (
    KINDS,
    Example,
    leveled,
    plain,
    tar_of,
    write,
    write_packed_tar,
    write_parquet,
    write_tar,
)
from training.data.captioned.index import Entry, Index
from training.data.captioned.locations import Location


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_every_example(kind: str, url: str, reader: OpenReader) -> None:
    KINDS[kind](url, leveled(5))
    opened = reader(url)

    found = [opened.captioned(index) for index in range(len(opened))]

    assert [example and example[1] for example in found] == [f"level {at}" for at in range(5)]
    for level, example in enumerate(found):
        assert example is not None
        np.testing.assert_array_equal(example[0], np.full((8, 8, 3), (level, 0, 0)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_or_a_caption_that_is_missing_is_skipped(
    kind: str, url: str, reader: OpenReader
) -> None:
    odd = [Example("a", plain(1), None), Example("b", None, "b"), Example("c", plain(3), " ")]
    KINDS[kind](url, [*odd, *leveled(1, first=4)])
    opened = reader(url)

    found = [opened.captioned(index) for index in range(len(opened))]

    captions = [example[1] for example in found if example]
    assert captions == ["level 4"]
    # A folder has no example without a picture.
    assert opened.log.skipped == (2 if kind == "folder" else 3)


def test_files_of_a_folder_are_one_data_set_and_names_tell_them_apart(
    url: str, reader: OpenReader
) -> None:
    write_tar(f"{url}/0", leveled(2))
    for name, examples in (("b.tar", leveled(2, first=2)), ("c.tar", leveled(3, first=4))):
        files = {f"{each.key}.png": each.picture or b"" for each in examples}
        write(f"{url}/{name}", tar_of(files))
    write(f"{url}/._b.tar", b"what a Mac adds")
    files = reader(url).files

    assert len(files) == 5
    assert [files.name(index) for index in (0, 1, 2, 4)] == [
        ("b.tar", "002"),
        ("b.tar", "003"),
        ("c.tar", "004"),
        ("c.tar", "006"),
    ]


def test_hidden_folders_hold_no_examples(url: str, reader: OpenReader) -> None:
    for name in ("deeper/a.png", ".thumbnails/a.png", "deeper/_old/a.png", "deeper/._a.png"):
        write(f"{url}/{name}", plain(1))
    files = reader(url).files

    assert [files.name(index)[1] for index in range(len(files))] == ["deeper/a.png"]


def test_an_empty_member_is_not_asked_for() -> None:
    # A service takes an empty range for no range, and answers with the whole tar.
    filesystem: Any = None
    assert Location(filesystem, "bucket/a.tar", "gs://bucket/a.tar").read(512, 0) == b""


def test_one_file_is_a_data_set_of_its_own(url: str, reader: OpenReader) -> None:
    write_tar(url, leveled(2))
    assert len(reader(f"{url}/a.tar")) == 2


def test_a_member_s_name_may_be_long_and_of_any_alphabet(
    tmp_path: Path, reader: OpenReader
) -> None:
    key = "f/" * 80 + "лиса-狐"
    write(f"{tmp_path}/data/a.tar", tar_of({f"{key}.png": plain(9), f"{key}.TXT": b"a fox"}))
    opened = reader(tmp_path / "data")

    assert opened.files.name(0) == ("a.tar", key)
    assert opened.caption(0) == "a fox"


@pytest.mark.parametrize("write_data", [write_packed_tar, write_parquet, write_tar])
def test_what_was_made_of_a_file_is_kept_until_the_file_changes(
    write_data: Callable[[str, Sequence[Example]], None], tmp_path: Path, reader: OpenReader
) -> None:
    data, cache = tmp_path / "data", tmp_path / "out" / "data-cache"
    write_data(str(data), leveled(2))
    reader(data)
    kept = {file: file.stat().st_mtime_ns for file in cache.iterdir()}

    assert len(reader(data)) == 2
    assert {file: file.stat().st_mtime_ns for file in cache.iterdir()} == kept

    write_data(str(data), leveled(3))
    os.utime(next(data.iterdir()), (1, 1))
    assert len(reader(data)) == 3


def test_an_index_takes_some_tens_of_bytes_an_example() -> None:
    index = Index.of((f"{row:09}", Entry(row, 1, row, 1)) for row in range(1000))

    held = index.keys.nbytes + index.key_ends.nbytes + index.entries.nbytes
    assert held / len(index) <= 60
    assert (index.key(0), index.key(999)) == ("000000000", "000000999")
    assert index.entry(7) == Entry(7, 1, 7, 1)
