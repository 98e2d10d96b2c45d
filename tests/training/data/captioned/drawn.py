"""Small captioned pictures, written in every kind of file that training reads."""

import gzip
import io
import json
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import fsspec
import numpy as np
import pyarrow
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from pyarrow import parquet


class Example(NamedTuple):
    """A captioned picture; either may be missing."""

    key: str
    picture: bytes | None
    caption: str | None


def png(image: Image.Image, kind: str = "PNG", **extra: Any) -> bytes:
    """Returns a picture as a file."""
    content = io.BytesIO()
    image.save(content, kind, **extra)
    return content.getvalue()


def plain(level: int, size: tuple[int, int] = (24, 16)) -> bytes:
    """Returns a picture of one red."""
    return png(Image.new("RGB", size, (level, 0, 0)))


def leveled(count: int, first: int = 0) -> list[Example]:
    """Returns examples whose captions name their red."""
    levels = range(first, first + count)
    return [Example(f"{level:03}", plain(level), f"level {level}") for level in levels]


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """Returns a tar of files."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, held in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(held)
            archive.addfile(member, io.BytesIO(held))
    return content.getvalue()


def files_of(examples: Sequence[Example]) -> dict[str, bytes]:
    """Returns a picture and a text file of each example."""
    files = {}
    for key, picture, caption in examples:
        if picture is not None:
            files[f"{key}.png"] = picture
        if caption is not None:
            files[f"{key}.txt"] = caption.encode()
    return files


def write(url: str, content: bytes) -> None:
    """Writes a file of any file system."""
    filesystem, path = fsspec.core.url_to_fs(url)
    filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
    filesystem.pipe_file(path, content)


def write_tar(folder: str, examples: Sequence[Example]) -> None:
    write(f"{folder}/a.tar", tar_of(files_of(examples)))


def write_packed_tar(folder: str, examples: Sequence[Example]) -> None:
    write(f"{folder}/a.tar.gz", gzip.compress(tar_of(files_of(examples))))


def write_json_tar(folder: str, examples: Sequence[Example]) -> None:
    files: dict[str, bytes] = {}
    for key, picture, caption in examples:
        files |= {f"in/{key}.jpg": picture or b"", f"in/{key}.seg.png": b"of another network"}
        files[f"in/{key}.json"] = json.dumps({"caption": caption, "width": 24}).encode()
    write(f"{folder}/a.tgz", gzip.compress(tar_of(files)))


def write_folder(folder: str, examples: Sequence[Example]) -> None:
    for name, content in files_of(examples).items():
        write(f"{folder}/deeper/{name}", content)


def write_metadata(folder: str, examples: Sequence[Example]) -> None:
    rows = []
    for key, picture, caption in examples:
        write(f"{folder}/{key}.png", picture or b"")
        rows.append(json.dumps({"file_name": f"{key}.png", "caption": caption}, indent=None))
    write(f"{folder}/metadata.jsonl", "\n".join(rows).encode())


def parquet_of(columns: Mapping[str, Any]) -> bytes:
    """Returns a Parquet file of a few rows a group."""
    content = io.BytesIO()
    parquet.write_table(pyarrow.table(dict(columns)), content, row_group_size=2)
    return content.getvalue()


def write_parquet(folder: str, examples: Sequence[Example]) -> None:
    captions = [example.caption for example in examples]
    pictures = [example.picture for example in examples]
    write(f"{folder}/a.parquet", parquet_of({"image": pictures, "caption": captions}))


def write_struct_parquet(folder: str, examples: Sequence[Example]) -> None:
    captions = [example.caption for example in examples]
    pictures = [{"bytes": example.picture, "path": example.key} for example in examples]
    write(f"{folder}/a.parquet", parquet_of({"image": pictures, "caption": captions}))


def tf_example(features: Mapping[str, bytes]) -> bytes:
    """Encodes a tf.train.Example by hand, field by field."""

    def field(number: int, content: bytes) -> bytes:
        assert len(content) < 2**14
        size = len(content)
        length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
        return bytes([number << 3 | 2]) + length + content

    entries = b"".join(
        field(1, field(1, name.encode()) + field(2, field(1, field(1, value))))
        for name, value in features.items()
    )
    return field(1, entries)


def array_record_of(records: Sequence[bytes], path: str) -> None:
    """Writes a local ArrayRecord file."""
    writer = ArrayRecordWriter(path, "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def write_array_record(folder: str, examples: Sequence[Example]) -> None:
    records = []
    for _, picture, caption in examples:
        features = {"image": picture, "caption": caption and caption.encode(), "label": b"7"}
        records.append(tf_example({name: held for name, held in features.items() if held}))
    with tempfile.NamedTemporaryFile() as file:
        array_record_of(records, file.name)
        with open(file.name, "rb") as written:
            write(f"{folder}/cats-train.array_record-00000-of-00001", written.read())


KINDS = {
    "tar": write_tar,
    "tar.gz": write_packed_tar,
    "tgz with JSON": write_json_tar,
    "folder": write_folder,
    "folder with metadata": write_metadata,
    "Parquet": write_parquet,
    "Parquet of structs": write_struct_parquet,
    "ArrayRecord": write_array_record,
}


def noise(side: int, seed: int = 0) -> np.ndarray:
    """Returns random colours."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
