"""One shard: the tokens or the embeddings of a run of consecutive examples, in one file.

    tokens-00003-of-00064.safetensors       low [n, Nl], high [n, N] if there is a superres, uint16
    embeddings-00003-of-00064.safetensors   text [words of all n, D] in bfloat16, ends [n]
    tokens-00003-of-00064.skipped.jsonl     file, key and reason of examples that cannot be used

Each says by `usable` [n] which examples could be used. Its header names the data set's length, the
shard, the filters and what computed it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from training.whole_files import whole_file

Kind = Literal["tokens", "embeddings"]


class ShardError(ValueError):
    """Shards are missing, or are of another data set or other stages."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Which part of which data set, and what computes it.

    Attributes:
        kind: "tokens" or "embeddings".
        index: From 0 up.
        count: Shards of the data set.
        examples: In the whole data set.
        made_by: Names of the codebooks or of the encoder.
        filters: Those that left examples out, as JSON.
    """

    kind: Kind
    index: int
    count: int
    examples: int
    made_by: Mapping[str, str]
    filters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.index < self.count:
            raise ShardError(
                f"expected a shard of 0 to {self.count - 1} of at least 1, got shard {self.index} "
                f"of {self.count}"
            )
        if self.count > self.examples:
            raise ShardError(
                f"expected at most as many shards as examples, {self.examples}, got {self.count}"
            )

    @property
    def rows(self) -> range:
        """The examples in it: as many as in any other, or one more."""
        first, last = (
            self.examples * place // self.count for place in (self.index, self.index + 1)
        )
        return range(first, last)

    def file(self, folder: Path) -> Path:
        """Returns where it lies."""
        return folder / f"{self.kind}-{self.index:05}-of-{self.count:05}.safetensors"

    def skipped_file(self, folder: Path) -> Path:
        """Returns where its unusable examples are named."""
        return self.file(folder).with_suffix(".skipped.jsonl")

    def is_written(self, folder: Path) -> bool:
        """Returns whether it is there already.

        Raises:
            ShardError: what is there is of another data set or other stages.
        """
        file = self.file(folder)
        if not file.is_file():
            return False
        found = read_header(file)
        if found != self:
            raise ShardError(
                f"{file} is of something else: expected {self}, got {found}; remove it"
            )
        return True

    def write(self, folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes it; a reader sees all of it or nothing."""
        with whole_file(self.file(folder)) as part:
            save_file(dict(arrays), part, metadata={"shard": json.dumps(asdict(self))})


def read_header(file: Path) -> Shard:
    """Reads which shard a file is.

    Raises:
        ShardError: it is none.
    """
    try:
        with safe_open(file, framework="numpy") as stream:
            return Shard(**json.loads(stream.metadata()["shard"]))
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ShardError(
            f"{file} is no shard of `python -m training.precompute`: {error}"
        ) from error


def find_shards(folder: Path, kind: Kind) -> list[tuple[Path, Shard]]:
    """Returns every shard of a kind, in order.

    Raises:
        ShardError: one is missing, or they are not of one data set, the same filters and stages.
    """
    files = sorted(folder.glob(f"{kind}-*.safetensors"))
    if not files:
        raise ShardError(f"expected {kind}-*.safetensors in {folder}, found none")
    found = [(file, read_header(file)) for file in files]
    first = found[0][1]
    if any(replace(each, index=first.index) != first for _, each in found):
        raise ShardError(
            f"{folder}: the {kind} are of several data sets, filters or stages: remove them"
        )
    missing = sorted(set(range(first.count)) - {each.index for _, each in found})
    if missing:
        raise ShardError(f"{folder}: of {first.count} shards of {kind}, {missing} are missing")
    return found
