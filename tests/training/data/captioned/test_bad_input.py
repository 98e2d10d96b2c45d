"""Data that cannot be read end a run with one sentence."""

import gzip
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.data.captioned.conftest import OpenReader
from tests.training.data.captioned.drawn import (
    files_of,
    leveled,
    parquet_of,
    plain,
    tar_of,
    write,
    write_array_record,
    write_parquet,
    write_tar,
)
from training.data.captioned.errors import DataError


def cut_tar(folder: str) -> None:
    write(f"{folder}/a.tar", tar_of({"a.txt": b"a", "b.png": os.urandom(4000)})[:3000])


def cut_packed_tar(folder: str) -> None:
    packed = gzip.compress(tar_of({"a.txt": b"a", "b.png": os.urandom(4000)}))
    write(f"{folder}/a.tar.gz", packed[:3000])


def damaged_parquet(folder: str) -> None:
    content = bytearray(parquet_of({"image": [plain(1)] * 5, "caption": ["one"] * 5}))
    content[4:200] = bytes(196)
    write(f"{folder}/a.parquet", bytes(content))


def of_two_kinds(folder: str) -> None:
    write_tar(folder, leveled(1))
    write_parquet(folder, leveled(1))


def damaged_header(folder: str) -> None:
    content = bytearray(tar_of(files_of(leveled(2))))
    content[1024:1536] = b"x" * 512
    write(f"{folder}/a.tar", bytes(content))


def cut_header(folder: str) -> None:
    write(f"{folder}/a.tar", tar_of(files_of(leveled(2)))[:1124])


def lists_of_captions(folder: str) -> None:
    columns = {"image": [plain(1)], "caption": [["a fox", "an animal"]]}
    write(f"{folder}/a.parquet", parquet_of(columns))


def metadata_without_a_file(folder: str) -> None:
    write(f"{folder}/a.png", plain(1))
    write(f"{folder}/metadata.jsonl", b'{"file_name": "a.png"}\n{"caption": "b"}\n')


BAD: dict[str, tuple[Callable[[str], None], str]] = {
    "nothing there": (lambda folder: None, r"got .*data: it is missing"),
    "a folder without examples": (
        lambda folder: write(f"{folder}/readme.md", b"# Data"),
        r"expected WebDataset tars .* or pictures .* found none",
    ),
    "a tar without examples": (
        lambda folder: write(f"{folder}/a.tar", tar_of({})),
        "expected captioned pictures in .*, found none",
    ),
    "a cut tar": (cut_tar, r"a\.tar is cut or no tar: .*: copy it again"),
    "no tar": (lambda folder: write(f"{folder}/a.tar", b"x" * 2000), r"a\.tar is cut or no tar"),
    "a tar with a damaged header": (damaged_header, r"a\.tar is cut .*: no header at byte 1024"),
    "a tar cut in a header": (cut_header, r"a\.tar is cut .*: no header at byte 1024"),
    "an empty tar": (lambda folder: write(f"{folder}/a.tar", b""), r"a\.tar is cut or no tar"),
    "a cut gzip file": (cut_packed_tar, r"a\.tar\.gz is cut or no gzip file"),
    "no gzip file": (
        lambda folder: write(f"{folder}/a.tgz", b"x" * 2000),
        r"a\.tgz is cut or no gzip file",
    ),
    "a gzip file of no tar": (
        lambda folder: write(f"{folder}/a.tgz", gzip.compress(b"x" * 2000)),
        r"is cut or no tar",
    ),
    "no Parquet file": (
        lambda folder: write(f"{folder}/a.parquet", b"x" * 2000),
        r"a\.parquet: a column cannot be read",
    ),
    "a Parquet column that cannot be read": (
        damaged_parquet,
        r"a\.parquet: a column cannot be read",
    ),
    "a Parquet file without pictures": (
        lambda folder: write(f"{folder}/a.parquet", parquet_of({"image": [1], "text": ["one"]})),
        r"expected a column 'image' of encoded pictures, got image \(int64\), text \(string\)",
    ),
    "a Parquet file with lists of captions": (
        lists_of_captions,
        r"expected a column 'caption' of text, got list<.*>: name another one with --caption-field",
    ),
    "no ArrayRecord file": (
        lambda folder: write(f"{folder}/a.array_record", b"x" * 2000),
        r"a\.array_record is cut or no ArrayRecord file",
    ),
    "files of two kinds": (of_two_kinds, "expected files of one kind, got 1 of Parquet and 1 of"),
    "a row of metadata without a file": (
        metadata_without_a_file,
        r"line 2 of metadata\.jsonl: expected a JSON object with a file_name",
    ),
    "a row of metadata with a list of files": (
        lambda folder: write(f"{folder}/metadata.jsonl", b'{"file_name": ["a.png"]}'),
        r"line 1 of metadata\.jsonl: expected .* got TypeError\(\"file_name \['a\.png'\]\"\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_are_named(name: str, tmp_path: Path, reader: OpenReader) -> None:
    make, said = BAD[name]
    make(str(tmp_path / "data"))
    with pytest.raises(DataError, match=said) as caught:
        reader(tmp_path / "data")
    assert "\n" not in str(caught.value)
    cache = tmp_path / "out" / "data-cache"
    assert not list(cache.glob("*.part"))


def test_a_damaged_index_is_named(tmp_path: Path, reader: OpenReader) -> None:
    write_tar(f"{tmp_path}/data", leveled(2))
    reader(tmp_path / "data")
    (index,) = (tmp_path / "out" / "data-cache").iterdir()
    index.write_bytes(index.read_bytes()[:100])
    with pytest.raises(DataError, match=r"index\.npz is damaged: delete it, and it is made again"):
        reader(tmp_path / "data")


def test_a_file_of_another_kind_is_no_folder(tmp_path: Path, reader: OpenReader) -> None:
    write(f"{tmp_path}/a.png", plain(1))
    with pytest.raises(DataError, match="found none"):
        reader(tmp_path / "a.png")


def test_an_unknown_scheme_is_named(reader: OpenReader) -> None:
    with pytest.raises(DataError, match=r"gs://, s3:// or another .* got carrier-pigeon://"):
        reader("carrier-pigeon://data")


@pytest.mark.parametrize(("url", "module"), [("gs://mine/data", "gcsfs"), ("s3://mine", "s3fs")])
def test_a_scheme_whose_package_is_missing_says_what_to_install(
    url: str, module: str, reader: OpenReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=r"needs a package .*: pip install -e '\.\[data\]'"):
        reader(url)


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, reader: OpenReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(str(tmp_path / "data"), leveled(1))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"needs pyarrow: pip install -e '\.\[data\]'"):
        reader(tmp_path / "data")


def test_a_feature_that_records_lack_is_named_with_those_they_have(
    tmp_path: Path, reader: OpenReader
) -> None:
    write_array_record(str(tmp_path / "data"), leveled(1))
    opened = reader(tmp_path / "data", picture_field="picture")
    assert opened.image(0) is None
    said = (tmp_path / "out" / "skipped.jsonl").read_text()
    assert "expected bytes in the feature 'picture', got features: caption, image, label" in said


def test_a_tar_that_vanishes_after_it_was_indexed_ends_the_run(
    tmp_path: Path, reader: OpenReader
) -> None:
    write(f"{tmp_path}/data/a.tar", tar_of(files_of(leveled(1))))
    opened = reader(tmp_path / "data")
    (tmp_path / "data" / "a.tar").unlink()
    with pytest.raises(FileNotFoundError):
        opened.captioned(0)
