"""Runs the frozen stages over the examples of one shard."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np

from services.pictures.low_resolution import low_resolution_view
from training.data.captioned.reading import ExampleReader
from training.precompute.shards import Shard
from training.tasks.frozen import FrozenTextEncoder, FrozenTokenizer

LARGEST_ID = np.iinfo(np.uint16).max


def write_tokens(
    shard: Shard,
    reader: ExampleReader,
    low: FrozenTokenizer,
    high: FrozenTokenizer | None,
    out: Path,
    *,
    batch_size: int,
) -> None:
    """Writes the token ids of a shard's pictures; zeros for unusable ones.

    A system without a superres has those of the low-resolution tokenizer alone.

    Raises:
        DataError: too many pictures cannot be used.
        ValueError: a codebook has more codes than 16 bits name.
    """
    tokenizers = {"low": low} if high is None else {"low": low, "high": high}
    for tokenizer in tokenizers.values():
        if tokenizer.config.codebook_size - 1 > LARGEST_ID:
            raise ValueError(
                f"expected at most {LARGEST_ID + 1} codes, got {tokenizer.config.codebook_size}"
            )
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in tokenizers}
    usable: list[bool] = []
    blank = np.zeros((reader.side_px, reader.side_px, 3), np.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for rows in _batches(shard.rows, batch_size):
            found = list(threads.map(reader.image, rows))
            usable += [image is not None for image in found]
            images = np.stack([blank if image is None else image for image in found])
            side = low.config.image_size
            views = np.stack([low_resolution_view(image, side) for image in images])
            pieces["low"].append(np.asarray(low.ids(views)))
            if high is not None:
                pieces["high"].append(np.asarray(high.ids(images)))
    tokens = {name: np.concatenate(ids).astype(np.uint16) for name, ids in pieces.items()}
    shard.write(out, {**tokens, "usable": np.array(usable)})


def write_embeddings(
    shard: Shard,
    reader: ExampleReader,
    encoder: FrozenTextEncoder,
    out: Path,
    *,
    batch_size: int,
) -> None:
    """Writes the embeddings of a shard's captions, without padding, in bfloat16 as on the wire.

    An unusable caption has no words.

    Raises:
        DataError: too many captions cannot be used.
    """
    words: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    usable: list[bool] = []
    for rows in _batches(shard.rows, batch_size):
        captions = [reader.caption(row) for row in rows]
        readable = np.array([caption is not None for caption in captions])
        values, mask = map(np.asarray, encoder.embeddings([text or "" for text in captions]))
        mask = mask & readable[:, None]
        usable += readable.tolist()
        words.append(values[mask].astype(ml_dtypes.bfloat16))
        lengths.append(mask.sum(axis=1))
    arrays: Mapping[str, np.ndarray] = {
        "text": np.concatenate(words),
        "ends": np.cumsum(np.concatenate(lengths), dtype=np.int64),
        "usable": np.array(usable),
    }
    shard.write(out, arrays)


def _batches(rows: range, size: int) -> Iterator[range]:
    for first in range(0, len(rows), size):
        yield rows[first : first + size]
