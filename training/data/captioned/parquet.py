"""Parquet files with a column of encoded pictures and one of captions.

A row of a Parquet file can only be read with all of its row group, so each file is rewritten once
as a tar in the run's cache.
"""

import io
import logging
import tarfile
from pathlib import Path
from typing import Any

from training.data.captioned.cache import DataCache
from training.data.captioned.errors import DataError
from training.data.captioned.locations import Location, locate
from training.data.captioned.tars import PICTURE_ENDINGS, TarPart, indexed_tar

ROWS_AT_A_TIME = 64
logger = logging.getLogger(__name__)


def open_parquet(
    file: Location, cache: DataCache, *, picture_field: str, caption_field: str
) -> TarPart:
    """Opens a Parquet file, rewritten in the cache if it is seen for the first time.

    Args:
        file: It.
        cache: Where its tar is kept.
        picture_field: Column of encoded pictures: bytes, or a struct with `bytes` as Hugging
            Face's datasets write it.
        caption_field: Column of captions; a file without it has no captions.

    Raises:
        DataError: pyarrow is missing, the file is none, or a column is missing or unreadable.
    """
    ending = f".{picture_field}.{caption_field}.tar"  # of other columns it is another tar

    def write(to: Path) -> None:
        _rewrite(file, to, picture_field, caption_field)

    tar = locate(str(cache.made(file, ending, write)))
    return indexed_tar(tar, cache, source=file.name, caption_field=caption_field)


def _rewrite(file: Location, to: Path, picture_field: str, caption_field: str) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            f"{file.url} is Parquet, which needs {error.name}: pip install -e '.[data]'"
        ) from error
    try:
        with (
            file.filesystem.open(file.path, "rb") as stream,
            parquet.ParquetFile(stream) as rows,
            tarfile.open(to, "w") as archive,
        ):
            schema = rows.schema_arrow
            if not _holds_pictures(schema, picture_field):
                raise DataError(
                    f"{file.url}: expected a column {picture_field!r} of encoded pictures, got "
                    f"{', '.join(f'{each.name} ({each.type})' for each in schema)}: name it with "
                    "--picture-field"
                )
            if caption_field in schema.names and not _holds_texts(schema, caption_field):
                raise DataError(
                    f"{file.url}: expected a column {caption_field!r} of text, got "
                    f"{schema.field(caption_field).type}: name another one with --caption-field"
                )
            columns = [name for name in (picture_field, caption_field) if name in schema.names]
            number = 0
            for batch in rows.iter_batches(ROWS_AT_A_TIME, columns=columns):
                for row in batch.to_pylist():
                    _add(archive, f"{number:09}", row, picture_field, caption_field)
                    number += 1
    except (pyarrow.ArrowException, OSError) as error:
        said = " ".join(str(error).split())  # Arrow's errors have several lines
        raise DataError(f"{file.url}: a column cannot be read: {said}") from error
    logger.warning(
        "%s has no random access: it was rewritten in %s, %.1f MB",
        file.url,
        to.parent,
        to.stat().st_size / 1e6,
    )


def _holds_pictures(schema: Any, name: str) -> bool:
    from pyarrow import types

    if name not in schema.names:
        return False
    kind = schema.field(name).type
    if types.is_struct(kind):
        kind = next((field.type for field in kind if field.name == "bytes"), kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _holds_texts(schema: Any, name: str) -> bool:
    from pyarrow import types

    kind = schema.field(name).type
    if types.is_dictionary(kind):
        kind = kind.value_type
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    return any(test(kind) for test in tests)


def _add(archive: tarfile.TarFile, key: str, row: dict[str, Any], picture: str, text: str) -> None:
    found = row[picture]
    content = found["bytes"] if isinstance(found, dict) else found
    caption = row.get(text)
    files = {
        PICTURE_ENDINGS[0]: content,  # whatever format it is: its reader looks at the bytes
        ".txt": (caption or "").encode(),
    }
    for ending, held in files.items():
        if held is not None:
            member = tarfile.TarInfo(key + ending)
            member.size = len(held)
            archive.addfile(member, io.BytesIO(held))
