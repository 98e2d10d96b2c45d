"""The text encoder as a server runs it: rows of ids in, embeddings out, nothing compiled late."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, BFloat16, Bool, Int

from services.nn.compiling import compiler_options
from services.runtime.checkpoints.precision import Weights, served_digest
from services.text_encoder.config import TextEncoderConfig
from services.text_encoder.loading import LoadedTextEncoder, load_text_encoder
from services.text_encoder.vocabulary import PADDING, PromptTooLong, Vocabulary

SHORTEST_BUCKET = 16


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """What a running text encoder is.

    Attributes:
        fingerprint: "t5:" and 16 hex digits: names the embeddings it makes.
        digest: Of its weights, and their precision unless it is the checkpoint's own.
        device: What it computes on, such as "cpu x1".
        precision: In which it is kept and computes, such as "float32".
    """

    fingerprint: str
    digest: str
    device: str
    precision: str


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """One text's embedding, without padding.

    Attributes:
        values: One row a token, the end-of-sequence token included.
    """

    values: BFloat16[np.ndarray, "T D"]

    @property
    def tokens(self) -> int:
        """How many tokens the text has."""
        return int(self.values.shape[0])


class TextEncoderEngine:
    """Embeds batches of texts in a few fixed shapes, one a length bucket.

    A text has the same embedding, bit for bit, alone and in any company: it is padded to the
    shortest length that holds it, never to that of the others, and every batch is padded to the
    same number of rows, since a matrix product of fewer rows may add up in another order.
    """

    def __init__(self, loaded: LoadedTextEncoder, *, max_batch_size: int) -> None:
        """Prepares to compile.

        Args:
            loaded: The encoder.
            max_batch_size: Rows of one call of the device.

        Raises:
            ValueError: max_batch_size is not positive.
        """
        if max_batch_size < 1:
            raise ValueError(f"max_batch_size must be at least 1, got {max_batch_size}")
        self.config: TextEncoderConfig = loaded.config
        self.vocabulary: Vocabulary = loaded.vocabulary
        self.max_batch_size = max_batch_size
        self.lengths = doubling(SHORTEST_BUCKET, self.config.maximum_length)
        graph, self._parameters = nnx.split(loaded.encoder)

        def embed(
            parameters: nnx.State[Any, Any], ids: Int[Array, "B T"], mask: Bool[Array, "B T"]
        ) -> BFloat16[Array, "B T D"]:
            return nnx.merge(graph, parameters)(ids, mask).astype(jnp.bfloat16)

        self._embed = jax.jit(embed, compiler_options=compiler_options())
        self.info = EngineInfo(
            fingerprint=loaded.fingerprint,
            digest=served_digest(loaded.digest, loaded.precision),
            device=f"{jax.default_backend()} x{jax.device_count()}",
            precision=loaded.precision,
        )

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        max_batch_size: int = 8,
        dtype: DTypeLike = jnp.float32,
        weights: Weights = "full",
    ) -> "TextEncoderEngine":
        """Loads a checkpoint of ours, or one of Hugging Face's.

        Args:
            source: A checkpoint folder, or a hub id.
            max_batch_size: Rows of one call of the device.
            dtype: Of parameters and arithmetic: float32 or bfloat16.
            weights: How the matrices of the layers are kept.

        Raises:
            CheckpointNotFound: there is none.
            CheckpointMismatch: there is one, but not of a T5 v1.1 encoder.
        """
        loaded = load_text_encoder(source, dtype=dtype, weights=weights)
        return cls(loaded, max_batch_size=max_batch_size)

    def warm_up(self) -> None:
        """Compiles every shape; call it before the first request."""
        for length in self.lengths:
            ids = np.zeros((self.max_batch_size, length), np.int32)
            self._embed(self._parameters, ids, ids == PADDING).block_until_ready()

    def tokenize(self, text: str) -> list[int]:
        """Returns the ids of a text, the end-of-sequence id included.

        Touches no device, so it may run anywhere.

        Raises:
            PromptTooLong: it has more tokens than config.maximum_length.
        """
        ids = self.vocabulary.encode(text)
        if len(ids) > self.config.maximum_length:
            raise PromptTooLong(0, len(ids), self.config.maximum_length)
        return ids

    def embed(self, rows: Sequence[Sequence[int]]) -> list[Embedding]:
        """Embeds texts given as ids; runs on the device thread.

        Args:
            rows: Ids as `tokenize` returns them; any number of rows.
        """
        found: dict[int, Embedding] = {}
        for length in self.lengths:
            fits = [index for index, row in enumerate(rows) if self._bucket(row) == length]
            for start in range(0, len(fits), self.max_batch_size):
                chosen = fits[start : start + self.max_batch_size]
                values = self._run([rows[index] for index in chosen], length)
                found.update(zip(chosen, values, strict=True))
        return [found[index] for index in range(len(rows))]

    def computed_rows(self, rows: Sequence[Sequence[int]]) -> int:
        """Returns how many rows `embed` has the device compute for these, padding included."""
        fits = Counter(self._bucket(row) for row in rows)
        batches = sum(-(-count // self.max_batch_size) for count in fits.values())
        return batches * self.max_batch_size

    def _bucket(self, row: Sequence[int]) -> int:
        return next(length for length in self.lengths if len(row) <= length)

    def _run(self, rows: Sequence[Sequence[int]], length: int) -> list[Embedding]:
        ids = np.full((self.max_batch_size, length), PADDING, np.int32)
        mask = np.zeros((self.max_batch_size, length), bool)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = True
        values = np.asarray(self._embed(self._parameters, ids, mask)).astype(ml_dtypes.bfloat16)
        return [Embedding(values=values[index, : len(row)]) for index, row in enumerate(rows)]


def doubling(first: int, last: int) -> tuple[int, ...]:
    """Returns first, twice that and so on, and last in the end."""
    buckets = []
    while first < last:
        buckets.append(first)
        first *= 2
    return (*buckets, last)
