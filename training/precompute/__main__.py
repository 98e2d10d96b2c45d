"""`python -m training.precompute`: what the frozen stages make of WebDataset tars, a shard a call.

The exit status says whether to try again: 78 (EX_CONFIG) is a mistake that every shard would meet,
65 (EX_DATAERR) one of this shard's examples, anything else may go away.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from services.presets import preset as named_preset
from services.runtime.checkpoints.errors import CheckpointError
from training.data.sprites import has_sprites
from training.data.webdataset import WebDatasetError, WebDatasetSource
from training.precompute.computing import write_embeddings, write_tokens
from training.precompute.shards import Shard
from training.tasks.frozen import FrozenTextEncoder, FrozenTokenizer

CONFIGURATION, DATA = 78, 65  # of sysexits.h

app = App(
    name="python -m training.precompute",
    help="Computes tokens or embeddings of WebDataset tars once, for --precomputed of training.",
)
Index = Annotated[int, Parameter(help="Which shard, from 0 up.")]
Count = Annotated[int, Parameter(help="Shards of the whole data set.")]
Data = Annotated[Path, Parameter(help="Folder of WebDataset tars.")]
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
) -> None:
    """Token ids of the pictures of a shard, at both resolutions."""
    source = _source(data, preset, batch_size)
    low, high = (FrozenTokenizer(checkpoints / "tokenizer" / name) for name in ("low", "high"))
    made_by = {"low_codebook": low.codebook, "codebook": high.codebook}
    part = Shard(kind="tokens", index=shard, count=shards, examples=len(source), made_by=made_by)
    _make(part, out, lambda: write_tokens(part, source, low, high, out, batch_size=batch_size))


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
) -> None:
    """Embeddings of the captions of a shard, in bfloat16 as on the wire.

    Parameters
    ----------
    dtype
        Of the encoder's parameters and arithmetic.
    """
    source = _source(data, preset, batch_size)
    encoder = FrozenTextEncoder(checkpoints / "text_encoder", dtype=dtype)
    part = Shard(
        kind="embeddings",
        index=shard,
        count=shards,
        examples=len(source),
        made_by={"encoder": encoder.fingerprint, "dtype": dtype},
    )
    _make(part, out, lambda: write_embeddings(part, source, encoder, out, batch_size=batch_size))
    if encoder.captions_cut:
        print(f"{encoder.captions_cut} captions were cut to {encoder.maximum_length} tokens")


def _source(data: Path, preset: str, batch_size: int) -> WebDatasetSource:
    if batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more, got {batch_size}")
    if has_sprites(data):
        raise ValueError(
            f"expected WebDataset tars in {data}, got sprites: scenes are drawn anew at each step"
        )
    return WebDatasetSource(data, side_px=named_preset(preset).high_tokenizer.image_size)


def _make(part: Shard, out: Path, write: Callable[[], None]) -> None:
    file = part.file(out)
    if part.is_written(out):
        print(f"{file} is there already")
        return
    try:
        write()
    except WebDatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(DATA)
    print(f"{file}: {len(part.rows)} of {part.examples} examples")


def main() -> None:
    """Runs the command line; a mistake of the user's is one line."""
    try:
        app()
    except (CheckpointError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(CONFIGURATION)


if __name__ == "__main__":
    main()
