"""Reads shards as the examples of training steps, in the order in which training reads the data."""

from bisect import bisect_right
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from safetensors import safe_open

from training.data.order import ExampleOrder
from training.precompute.shards import Kind, ShardError, find_shards
from training.tasks.frozen import Examples, padded_length

GRIDS = {"low", "high"}


class Row(NamedTuple):
    """One example.

    Attributes:
        low: Its low-resolution token ids.
        high: Its high-resolution token ids; None of a system without a superres.
        text: The embeddings of the words of its caption.
    """

    low: Int[np.ndarray, " Nl"]
    high: Int[np.ndarray, " N"] | None
    text: Float[np.ndarray, "T D"]


class PrecomputedSource:
    """Random access to `Row`s. Shards are mapped into memory, not read whole.

    Attributes:
        made_by: Names of the codebooks and the encoder.
        filters: Those that left examples out, as JSON.
    """

    def __init__(self, folder: Path) -> None:
        """Opens the shards.

        Raises:
            ShardError: some are missing, or do not belong together.
        """
        tokens, text = (find_shards(folder, kind) for kind in ("tokens", "embeddings"))
        lengths = sorted({tokens[0][1].examples, text[0][1].examples})
        if len(lengths) > 1:
            raise ShardError(f"{folder}: tokens and embeddings are of data sets of {lengths}")
        self._length, self.filters = lengths[0], tokens[0][1].filters
        if self.filters != text[0][1].filters:
            raise ShardError(
                f"{folder}: tokens were made with the filters {dict(self.filters)}, embeddings "
                f"with {dict(text[0][1].filters)}: make one of them again"
            )
        self.made_by = {**tokens[0][1].made_by, **text[0][1].made_by}
        self._starts: dict[Kind, list[int]] = {}
        self._files: dict[Kind, list[Any]] = {}
        for shards in (tokens, text):
            kind = shards[0][1].kind
            self._starts[kind] = [shard.rows.start for _, shard in shards]
            self._files[kind] = [safe_open(file, framework="numpy") for file, _ in shards]
        self._ends = [file.get_tensor("ends") for file in self._files["embeddings"]]
        self._usable = np.logical_and(
            *(
                np.concatenate([file.get_tensor("usable") for file in self._files[kind]])
                for kind in self._files
            )
        )

    def __len__(self) -> int:
        """Returns the number of examples."""
        return self._length

    def row(self, index: int) -> Row | None:
        """Reads an example; None if its picture or caption was not usable."""
        if not self._usable[index]:
            return None
        shard, row = self._place("tokens", index)
        tokens = self._files["tokens"][shard]
        grids = {
            name: tokens.get_slice(name)[row : row + 1][0] for name in GRIDS & {*tokens.keys()}
        }
        shard, row = self._place("embeddings", index)
        ends = self._ends[shard]
        first = int(ends[row - 1]) if row else 0
        text = self._files["embeddings"][shard].get_slice("text")[first : int(ends[row])]
        return Row(grids["low"], grids.get("high"), text)

    def _place(self, kind: Kind, index: int) -> tuple[int, int]:
        shard = bisect_right(self._starts[kind], index) - 1
        return shard, index - self._starts[kind][shard]


class PrecomputedExamples:
    """The examples of each step: those that training would have computed from the same data."""

    def __init__(
        self,
        source: PrecomputedSource,
        *,
        high: bool,
        maximum_rows: int,
        batch_size: int,
        seed: int,
        rows: slice = slice(None),
    ) -> None:
        """Lays out the order.

        Args:
            source: The shards.
            high: Whether high-resolution tokens are wanted.
            maximum_rows: Rows of the encoder's longest embedding.
            batch_size: Examples a step.
            seed: Of the order, as of `CaptionedBatches`.
            rows: Those of each batch that this process reads.
        """
        self._high, self._maximum_rows, self._batch_size = high, maximum_rows, batch_size
        self._places = range(batch_size)[rows]
        self._source, self._order = source, ExampleOrder(len(source), seed)

    def __call__(self, step: int) -> Examples:
        """Returns the examples of a step.

        Raises:
            ValueError: hardly any example is usable.
        """
        first = step * self._batch_size
        rows = [self._order.first_usable(first + at, self._source.row) for at in self._places]
        lengths = np.array([len(row.text) for row in rows])
        # Of a part of a batch the longest caption is another one, and arrays must be of one length.
        whole = len(rows) == self._batch_size
        longest = int(lengths.max()) if whole else self._maximum_rows
        length = padded_length(longest, self._maximum_rows)
        text = np.zeros((len(rows), length, rows[0].text.shape[1]), np.float32)
        for place, row in enumerate(rows):
            text[place, : len(row.text)] = row.text
        return Examples(
            low=jnp.asarray(np.stack([row.low for row in rows]), jnp.int32),
            high=jnp.asarray(
                np.stack([row.high for row in rows if row.high is not None]), jnp.int32
            )
            if self._high
            else None,
            text=jnp.asarray(text),
            text_mask=jnp.asarray(np.arange(length) < lengths[:, None]),
        )
