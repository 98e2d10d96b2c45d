"""`python -m training.precompute`: what the frozen stages make of captioned pictures, by shards.

The exit status says whether to try again: 78 (EX_CONFIG) is a mistake that every shard would meet,
65 (EX_DATAERR) too many unusable examples in this shard, anything else may go away.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from services.presets import preset as named_preset
from services.runtime.checkpoints.errors import CheckpointError
from services.runtime.version import package_version
from training.data.captioned.errors import DataError
from training.data.captioned.files import PictureFiles
from training.data.captioned.reading import ExampleReader
from training.data.sources import NO_DATA_FLAGS, DataFlags
from training.data.sprites import has_sprites
from training.precompute.computing import write_embeddings, write_tokens
from training.precompute.shards import Shard
from training.tasks.frozen import FrozenTextEncoder, FrozenTokenizer

CONFIGURATION, DATA = 78, 65  # of sysexits.h

app = App(
    name="python -m training.precompute",
    help="Computes tokens or embeddings of captioned pictures once, for --precomputed of training.",
    version=package_version,
)
Index = Annotated[int, Parameter(help="Which shard, from 0 up.")]
Count = Annotated[int, Parameter(help="Shards of the whole data set.")]
Data = Annotated[
    str,
    Parameter(
        help="Folder or URL (gs://, s3://) of WebDataset tars, Parquet or ArrayRecord files, or of "
        "pictures with captions."
    ),
]
Reading = Annotated[DataFlags, Parameter(name="*")]
Checkpoints = Annotated[Path, Parameter(help="Root of the frozen stages' checkpoints.")]
Out = Annotated[Path, Parameter(help="Folder of the shards; one that is there is not made again.")]
Batch = Annotated[int, Parameter(help="Examples at a time.")]


@app.command
def tokens(
    *,
    data: Data,
    checkpoints: Checkpoints,
    out: Out,
    shard: Index,
    shards: Count,
    preset: str = "demo",
    batch_size: Batch = 8,
    data_flags: Reading = NO_DATA_FLAGS,
) -> None:
    """Token ids of the pictures of a shard, by each tokenizer of the checkpoints."""
    files = _files(data, data_flags, out, batch_size)
    folder = checkpoints / "tokenizer"
    low = FrozenTokenizer(folder / "low")
    high = FrozenTokenizer(folder / "high") if (folder / "high").exists() else None
    names = {"low_codebook": low.codebook} | ({} if high is None else {"codebook": high.codebook})
    part = Shard(
        kind="tokens",
        index=shard,
        count=shards,
        examples=len(files),
        made_by=names,
        filters=data_flags.filters.description(),
    )
    _make(
        part,
        out,
        _reader(files, data_flags, preset, part, out, least_px=low.config.image_size),
        lambda reader: write_tokens(part, reader, low, high, out, batch_size=batch_size),
    )


@app.command
def embeddings(
    *,
    data: Data,
    checkpoints: Checkpoints,
    out: Out,
    shard: Index,
    shards: Count,
    preset: str = "demo",
    batch_size: Batch = 8,
    dtype: Literal["float32", "bfloat16"] = "float32",
    data_flags: Reading = NO_DATA_FLAGS,
) -> None:
    """Embeddings of the captions of a shard, in bfloat16 as on the wire.

    Parameters
    ----------
    dtype
        Of the encoder's parameters and arithmetic.
    """
    files = _files(data, data_flags, out, batch_size)
    encoder = FrozenTextEncoder(checkpoints / "text_encoder", dtype=dtype)
    part = Shard(
        kind="embeddings",
        index=shard,
        count=shards,
        examples=len(files),
        made_by={"encoder": encoder.fingerprint, "dtype": dtype},
        filters=data_flags.filters.description(),
    )
    _make(
        part,
        out,
        _reader(files, data_flags, preset, part, out),
        lambda reader: write_embeddings(part, reader, encoder, out, batch_size=batch_size),
    )
    if encoder.captions_cut:
        print(f"{encoder.captions_cut} captions were cut to {encoder.maximum_length} tokens")


def _files(data: str, flags: DataFlags, out: Path, batch_size: int) -> PictureFiles:
    if batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more, got {batch_size}")
    if has_sprites(Path(data)):
        raise ValueError(
            f"expected captioned pictures in {data}, got sprites: "
            "scenes are drawn anew at each step"
        )
    return flags.open(data, out)


def _reader(
    files: PictureFiles, flags: DataFlags, preset: str, part: Shard, out: Path, *, least_px: int = 0
) -> ExampleReader:
    side_px = max(named_preset(preset).side_px, least_px)
    return flags.reader(files, side_px=side_px, log=part.skipped_file(out))


def _make(
    part: Shard, out: Path, reader: ExampleReader, write: Callable[[ExampleReader], None]
) -> None:
    file = part.file(out)
    if part.is_written(out):
        print(f"{file} is there already")
        return
    try:
        write(reader)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(DATA)
    log = reader.log
    print(
        f"{file}: {len(part.rows)} of {part.examples} examples, {log.skipped} of them unusable, "
        f"{log.filtered.total()} left out by filters"
    )


def main() -> None:
    """Runs the command line; a mistake of the user's is one line."""
    try:
        app()
    except (CheckpointError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(CONFIGURATION)


if __name__ == "__main__":
    main()
