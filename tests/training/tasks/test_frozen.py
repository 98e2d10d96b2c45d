"""Tests for the stages that no longer learn."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from training.tasks.frozen import PICTURES_AT_ONCE, FrozenStages


@dataclass
class Tokenizer:
    """Takes a picture's first pixel for its token, and counts the pictures of each call."""

    at_once: list[int] = field(default_factory=list)
    config: Any = field(default_factory=lambda: SimpleNamespace(image_size=1))

    def ids(self, images: np.ndarray) -> np.ndarray:
        """Returns one token a picture."""
        self.at_once.append(len(images))
        return images[:, 0, 0, :1].astype(np.int32)


@pytest.mark.parametrize("count", [1, PICTURES_AT_ONCE, 3 * PICTURES_AT_ONCE + 1])
def test_pictures_are_tokenised_a_few_at_once_and_stay_in_order(count: int) -> None:
    images = np.zeros((count, 1, 1, 3), np.uint8)
    images[..., 0] = np.arange(count)[:, None, None]
    low, high = Tokenizer(), Tokenizer()
    frozen = FrozenStages(text_encoder=cast(Any, None), low=cast(Any, low), high=cast(Any, high))

    batch = frozen.tokenise(images, [str(row) for row in range(count)])

    assert np.array_equal(batch.low[:, 0], np.arange(count))
    assert batch.high is not None
    assert np.array_equal(batch.high[:, 0], np.arange(count))
    assert batch.captions[-1] == str(count - 1)
    assert max(low.at_once + high.at_once) <= PICTURES_AT_ONCE
    assert sum(low.at_once) == sum(high.at_once) == count
