"""Batches of composed scenes: every one a function of (seed, step), so a run resumes exactly."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from training.data.captions import describe
from training.data.retellings import retold_captions
from training.data.scenes import draw_training_scene, half_size, render
from training.data.sprites import SpriteSet


@dataclass(frozen=True, kw_only=True)
class SceneBatches:
    """Training scenes and their captions.

    Attributes:
        sprites: The artwork.
        side_px: Side of the high-resolution pictures; the low-resolution ones have half of it.
        batch_size: Scenes a step.
        seed: Of every choice.
    """

    sprites: SpriteSet
    side_px: int
    batch_size: int
    seed: int

    def captioned(self, step: int) -> tuple[UInt8[np.ndarray, "B h w 3"], list[str]]:
        """Returns the high-resolution pictures of a step and their captions."""
        vocabulary = self.sprites.vocabulary
        images, captions = [], []
        for index in range(self.batch_size):
            random = np.random.default_rng([self.seed, step, index])
            scene = draw_training_scene(vocabulary, random)
            images.append(render(scene, self.sprites, self.side_px))
            captions.append(describe(scene, vocabulary, random))
        return np.stack(images), captions

    def high(self, step: int) -> UInt8[np.ndarray, "B h w 3"]:
        """Returns the high-resolution pictures of a step."""
        return self.captioned(step)[0]

    def low(self, step: int) -> UInt8[np.ndarray, "B h2 w2 3"]:
        """Returns the low-resolution pictures of a step."""
        return half_size(self.high(step))

    def captions(self, seed: int) -> Iterator[str]:
        """Yields texts about training scenes without end, for the text encoder."""
        return retold_captions(self.sprites.vocabulary, seed)
