"""Runs the frozen stages over the examples of one shard."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from services.pictures.low_resolution import low_resolution_view
from training.data.webdataset import WebDatasetSource
from training.precompute.shards import Shard
from training.tasks.frozen import FrozenTextEncoder, FrozenTokenizer

LARGEST_ID = np.iinfo(np.uint16).max


def write_tokens(
    shard: Shard,
    source: WebDatasetSource,
    low: FrozenTokenizer,
    high: FrozenTokenizer,
    out: Path,
    *,
    batch_size: int,
) -> None:
    """Writes the token ids of a shard's pictures at both resolutions.

    Raises:
        WebDatasetError: a picture cannot be read.
        ValueError: a codebook has more codes than 16 bits name.
    """
    for tokenizer in (low, high):
        if tokenizer.config.codebook_size - 1 > LARGEST_ID:
            raise ValueError(
                f"expected at most {LARGEST_ID + 1} codes, got {tokenizer.config.codebook_size}"
            )
    pieces: dict[str, list[np.ndarray]] = {"low": [], "high": []}
    for rows in _batches(shard.rows, batch_size):
        images = np.stack([source[row][0] for row in rows])
        views = np.stack([low_resolution_view(image, low.config.image_size) for image in images])
        pieces["low"].append(np.asarray(low.ids(views)))
        pieces["high"].append(np.asarray(high.ids(images)))
    shard.write(out, {name: np.concatenate(ids).astype(np.uint16) for name, ids in pieces.items()})


def write_embeddings(
    shard: Shard,
    source: WebDatasetSource,
    encoder: FrozenTextEncoder,
    out: Path,
    *,
    batch_size: int,
) -> None:
    """Writes the embeddings of a shard's captions, without padding, in bfloat16 as on the wire.

    Raises:
        WebDatasetError: a caption cannot be read.
    """
    words: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    for rows in _batches(shard.rows, batch_size):
        values, mask = map(np.asarray, encoder.embeddings([source.caption(row) for row in rows]))
        words.append(values[mask].astype(ml_dtypes.bfloat16))
        lengths.append(mask.sum(axis=1))
    arrays: Mapping[str, np.ndarray] = {
        "text": np.concatenate(words),
        "ends": np.cumsum(np.concatenate(lengths), dtype=np.int64),
    }
    shard.write(out, arrays)


def _batches(rows: range, size: int) -> Iterator[range]:
    for first in range(0, len(rows), size):
        yield rows[first : first + size]
