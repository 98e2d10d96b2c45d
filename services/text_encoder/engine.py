"""Engine of the text encoder: rows of ids in, embeddings out, without the wire."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import ml_dtypes
import numpy as np
from flax import nnx
from jaxtyping import BFloat16

from services.runtime.checkpoints.golden import Arrays, check_golden
from services.runtime.scheduling.batching import BatchShape
from services.text_encoder.loading import LoadedTextEncoder
from services.text_encoder.programs import embed_programs, length_buckets
from services.text_encoder.vocabulary import PADDING, PromptTooLong

Rows = list[list[int]]
"""The ids of the texts of one request, one list per text."""


Embedding: TypeAlias = BFloat16[np.ndarray, "T D"]
"""The embedding of one text: one row per token, without padding, the end token included. Of a CLIP
one row per position, and the pooled vector after them."""


class TextEncoderEngine:
    """A loaded text encoder, compiled for a few fixed shapes. One thread uses it.

    A text has the same embedding, bit for bit, alone and in any company. Each text is padded to the
    shortest length bucket that holds it, whatever the other texts. Every batch is padded to
    `max_batch_size` rows, since a matrix product of fewer rows may sum in another order.

    Attributes:
        loaded: The encoder, its vocabulary, and what identifies them.
        max_batch_size: Rows of one call of the device.
        lengths: Length buckets, in tokens.
        device: Platform and number of the devices, such as "cpu x1".
    """

    def __init__(self, loaded: LoadedTextEncoder, *, max_batch_size: int) -> None:
        """Prepares to compile for batches of `max_batch_size` rows.

        Raises:
            ValueError: `max_batch_size` is not positive.
        """
        if max_batch_size < 1:
            raise ValueError(f"max_batch_size must be at least 1, got {max_batch_size}")
        self.loaded, self.max_batch_size = loaded, max_batch_size
        self.lengths = length_buckets(loaded.config)
        self.device = f"{jax.default_backend()} x{jax.device_count()}"
        graph, self._parameters = nnx.split(loaded.encoder)
        programs = embed_programs(graph, self._parameters, loaded.config, rows=max_batch_size)
        self._embed: Any = programs[self.lengths[0]].jit()  # of any length

    def warm_up(self) -> None:
        """Compiles every shape; nothing compiles afterwards.

        Raises:
            CheckpointMismatch: the checkpoint's golden example is damaged or of another stage.
            GoldenMismatch: this machine answers it otherwise.
        """
        for length in self.lengths:
            ids = np.zeros((self.max_batch_size, length), np.int32)
            self._embed(self._parameters, ids, ids == PADDING).block_until_ready()
        check_golden(self.loaded.folder, self.answer_golden)

    def answer_golden(self, inputs: Arrays) -> Arrays:
        """Returns the embedding of a text as "text".

        Args:
            inputs: The text's token ids as "tokens".
        """
        return {"text": self.embed([inputs["tokens"].tolist()])[0]}

    def tokenize(self, text: str) -> list[int]:
        """Returns the ids of a text, the end-of-sequence id included; touches no device.

        Raises:
            PromptTooLong: the text has more tokens than `config.maximum_length` of the encoder.
        """
        ids, limit = self.loaded.vocabulary.encode(text), self.loaded.config.maximum_length
        if len(ids) > limit:
            raise PromptTooLong(len(ids), limit)
        return ids

    def run(self, requests: list[Rows]) -> list[list[Embedding]]:
        """Embeds the texts of several requests together."""
        embeddings = iter(self.embed([row for rows in requests for row in rows]))
        return [[next(embeddings) for _ in rows] for rows in requests]

    def embed(self, rows: Sequence[Sequence[int]]) -> list[Embedding]:
        """Embeds any number of texts, given the ids of each from `tokenize`."""
        found: dict[int, Embedding] = {}
        for length in self.lengths:
            fits = [index for index, row in enumerate(rows) if self._bucket(row) == length]
            for start in range(0, len(fits), self.max_batch_size):
                chosen = fits[start : start + self.max_batch_size]
                values = self._run([rows[index] for index in chosen], length)
                found.update(zip(chosen, values, strict=True))
        return [found[index] for index in range(len(rows))]

    def batch_shape(self, requests: Sequence[Rows]) -> BatchShape:
        """Returns the rows of a batch of requests, without and with padding."""
        fits = Counter(self._bucket(row) for rows in requests for row in rows)
        runs = sum(-(-count // self.max_batch_size) for count in fits.values())
        return BatchShape(rows=fits.total(), bucket=runs * self.max_batch_size)

    def _bucket(self, row: Sequence[int]) -> int:
        return next(length for length in self.lengths if len(row) <= length)

    def _run(self, rows: Sequence[Sequence[int]], length: int) -> list[Embedding]:
        ids = np.full((self.max_batch_size, length), PADDING, np.int32)
        mask = np.zeros((self.max_batch_size, length), bool)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = True
        values = np.asarray(self._embed(self._parameters, ids, mask)).astype(ml_dtypes.bfloat16)
        beside = values.shape[1] - length  # rows after those of the positions: a pooled vector
        return [values[index, : len(row) + beside] for index, row in enumerate(rows)]
