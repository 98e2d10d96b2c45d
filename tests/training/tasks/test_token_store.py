"""Tests for the kept tokens of examples that come again."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from training.data.parallel import Captioned, compose
from training.tasks.frozen import Examples, FrozenStages, TokenisedBatch
from training.tasks.token_store import BLOCK, TokenStore


@dataclass
class Frozen:
    """Stages whose tokens are the pictures' own first pixels."""

    tokenised: list[int] = field(default_factory=list)

    def tokenise(self, images: np.ndarray, captions: list[str]) -> TokenisedBatch:
        """Takes a picture's pixels for its tokens."""
        self.tokenised.append(len(images))
        ids = images.reshape(len(images), -1).astype(np.int32)
        return TokenisedBatch(low=ids[:, :2], high=ids[:, :3], captions=tuple(captions))

    def examples(self, batch: TokenisedBatch) -> Examples:
        """Puts the captions' numbers where their embeddings belong."""
        assert batch.high is not None
        text = np.array([[[float(caption)]] for caption in batch.captions])
        parts: Any = (batch.low, batch.high, text, np.ones(text.shape[:2], bool))
        return Examples(*parts)


def images(block: int) -> Captioned:
    """Pictures that hold their block and row, and captions that say their row."""
    pixels = np.zeros((BLOCK, 1, 1, 3), np.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = block, np.arange(BLOCK) % 256
    return pixels, [str(row) for row in range(BLOCK)]


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return TokenStore(
        frozen=cast(FrozenStages, Frozen()),
        images=images,
        folder=tmp_path / "tokens",
        blocks=3,
        batch_size=128,
        seed=5,
    )


def seen(store: TokenStore, steps: range) -> list[tuple[int, int]]:
    """Returns block and row of every example of some steps; the caption must say the same row."""
    found = []
    for step in steps:
        batch = store(step)
        for low, text in zip(np.asarray(batch.low), np.asarray(batch.text), strict=True):
            assert low[1] == int(text.item()) % 256
            found.append((int(low[0]), int(text.item())))
    return found


def test_an_epoch_has_every_example_once_and_the_next_another_order(store: TokenStore) -> None:
    steps = store.blocks * BLOCK // store.batch_size
    first, second = seen(store, range(steps)), seen(store, range(steps, 2 * steps))
    everything = {(block, row) for block in range(3) for row in range(BLOCK)}
    assert len(first) == len(second) == len(everything)
    assert set(first) == set(second) == everything
    assert first != second


def test_pictures_are_tokenised_once_and_a_resumed_run_reads_them(store: TokenStore) -> None:
    before = seen(store, range(8))
    resumed = replace(store, frozen=cast(FrozenStages, Frozen()))
    assert seen(resumed, range(8)) == before
    assert cast(Frozen, store.frozen).tokenised == [BLOCK, BLOCK]
    assert cast(Frozen, resumed.frozen).tokenised == []


def test_a_smaller_batch_sees_the_same_examples(store: TokenStore) -> None:
    small = replace(store, batch_size=32)
    assert seen(small, range(4)) == seen(store, range(1))


def test_a_block_cut_short_is_made_again(store: TokenStore) -> None:
    store.folder.mkdir(parents=True)
    (store.folder / "block-00000.part").write_bytes(b"half")
    assert len(seen(store, range(1))) == store.batch_size


def test_several_processes_make_the_blocks_that_are_missing(store: TokenStore) -> None:
    one_by_one = seen(store, range(4))  # makes block 0
    assert list(store.fill(workers=2)) == [1, 2]
    assert seen(store, range(4)) == one_by_one
    assert seen(store, range(4, 8))[0][0] == 1


def test_a_batch_that_does_not_divide_a_block_is_refused(store: TokenStore) -> None:
    with pytest.raises(ValueError, match=f"must divide {BLOCK}, got 24"):
        replace(store, batch_size=24)


def test_no_worker_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 worker, got 0"):
        next(compose(images, [0], workers=0))
