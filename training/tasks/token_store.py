"""Examples that a transformer sees again and again: tokenised once, and kept in the run's folder.

A run of a few hours sees each of some hundred thousand scenes several times, masked otherwise each
time. Composing and tokenising a scene takes a fifth of a training step on a CPU and longer than the
whole step on a GPU, so tokens and captions are kept, in blocks, and a resumed run reads them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from training.data.parallel import CaptionedImages, compose
from training.tasks.frozen import Examples, FrozenStages, TokenisedBatch
from training.whole_files import whole_file

BLOCK = 512  # examples in a file


@dataclass(frozen=True, kw_only=True)
class TokenStore:
    """Tokens and captions of a fixed number of examples.

    Attributes:
        frozen: The stages that tokenise pictures and embed captions.
        images: Gives the pictures and captions of a block of `BLOCK` examples.
        folder: Where blocks are kept.
        blocks: How many blocks there are.
        batch_size: Examples of a training step; it divides `BLOCK`.
        seed: Of the order of the examples.
        rows: Those of each step that this process gives.
    """

    frozen: FrozenStages
    images: CaptionedImages
    folder: Path
    blocks: int
    batch_size: int
    seed: int
    rows: slice = field(default_factory=lambda: slice(None))

    def __post_init__(self) -> None:
        if BLOCK % self.batch_size:
            raise ValueError(f"batch_size must divide {BLOCK}, got {self.batch_size}")

    def __call__(self, step: int) -> Examples:
        """Returns the examples of a step, in an order that differs from epoch to epoch."""
        steps_a_block = BLOCK // self.batch_size
        epoch, step_of_epoch = divmod(step, self.blocks * steps_a_block)
        place, step_of_block = divmod(step_of_epoch, steps_a_block)
        random = np.random.default_rng([self.seed, epoch])
        # The first epoch makes the blocks in their order, so that a run can start at once.
        order = np.arange(self.blocks) if epoch == 0 else random.permutation(self.blocks)
        block = self._block(int(order[place]))
        rows = np.random.default_rng([self.seed, epoch, place]).permutation(BLOCK)
        first = step_of_block * self.batch_size
        return self.frozen.examples(_rows(block, rows[first : first + self.batch_size][self.rows]))

    def fill(self, workers: int) -> Iterator[int]:
        """Makes all blocks that are missing, composing their pictures in several processes.

        Args:
            workers: How many processes compose.

        Yields:
            The number of each block, once it is kept.
        """
        missing = [at for at in range(self.blocks) if not self._file(at).is_file()]
        for at, (images, captions) in compose(self.images, missing, workers=workers):
            self._keep(at, self.frozen.tokenise(images, captions))
            yield at

    def _block(self, at: int) -> TokenisedBatch:
        if not self._file(at).is_file():
            self._keep(at, self.frozen.tokenise(*self.images(at)))
        with np.load(self._file(at)) as kept:
            high = kept["high"].astype(np.int32) if "high" in kept else None
            return TokenisedBatch(kept["low"].astype(np.int32), high, tuple(kept["captions"]))

    def _keep(self, at: int, block: TokenisedBatch) -> None:
        """Writes a block, whole or not at all."""
        arrays: dict[str, Any] = {"low": _narrow(block.low), "captions": np.array(block.captions)}
        if block.high is not None:
            arrays["high"] = _narrow(block.high)
        with whole_file(self._file(at)) as part, part.open("wb") as stream:
            np.savez(stream, **arrays)

    def _file(self, at: int) -> Path:
        return self.folder / f"block-{at:05d}.npz"


def fresh_examples(frozen: FrozenStages, images: CaptionedImages) -> Callable[[int], Examples]:
    """Returns what composes and tokenises every step's pictures anew."""
    return lambda step: frozen.examples(frozen.tokenise(*images(step)))


def _narrow(ids: Int[np.ndarray, "B N"]) -> Int[np.ndarray, "B N"]:
    return ids.astype(np.uint16 if ids.max(initial=0) <= np.iinfo(np.uint16).max else np.uint32)


def _rows(block: TokenisedBatch, rows: Int[np.ndarray, " B"]) -> TokenisedBatch:
    return TokenisedBatch(
        low=block.low[rows],
        high=None if block.high is None else block.high[rows],
        captions=tuple(str(block.captions[row]) for row in rows),
    )
