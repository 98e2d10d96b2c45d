"""A tokenizer for measurements of tokenizers: what it makes of a picture is known."""

from types import SimpleNamespace

import numpy as np


class RememberingTokenizer:
    """Gives each picture an id of its own and returns it unchanged, or in one colour."""

    def __init__(self, side_px: int, *, exact: bool) -> None:
        self.config = SimpleNamespace(image_size=side_px, codebook_size=64, grid=1)
        self.exact, self.seen = exact, list[np.ndarray]()

    def ids(self, images: np.ndarray) -> np.ndarray:
        self.seen += list(images)
        return np.arange(len(self.seen) - len(images), len(self.seen))[:, None]

    def pictures(self, ids: np.ndarray) -> np.ndarray:
        images = np.stack([self.seen[at] for at in np.asarray(ids)[:, 0]])
        if self.exact:
            return images
        means = images.mean(axis=(1, 2), keepdims=True)
        return np.broadcast_to(means, images.shape).astype(np.uint8)
