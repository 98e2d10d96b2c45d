"""Batches of composed scenes: every one a function of (seed, step), so a run resumes exactly."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import UInt8

from training.data.captions import Caption, caption_of, label_classes, training_captions
from training.data.scenes import Board, draw_training_scene, render
from training.data.sprites import SpriteSet


@dataclass(frozen=True, kw_only=True)
class SceneBatches:
    """Training scenes and their captions.

    Attributes:
        sprites: The artwork.
        board: Grid that the scenes are laid out on.
        side_px: Side of the pictures, at high resolution.
        batch_size: Scenes a step.
        seed: Of every choice.
        rows: Scenes of each step that this process composes.
    """

    sprites: SpriteSet
    board: Board
    side_px: int
    batch_size: int
    seed: int
    rows: slice = field(default_factory=lambda: slice(None))

    def captioned(self, step: int) -> tuple[UInt8[np.ndarray, "B h w 3"], list[str]]:
        """Returns the high-resolution pictures of a step and their captions."""
        vocabulary = self.sprites.vocabulary
        images, captions = [], []
        for index in range(self.batch_size)[self.rows]:
            random = np.random.default_rng([self.seed, step, index])
            scene = draw_training_scene(vocabulary, self.board, random)
            images.append(render(scene, self.sprites, self.side_px))
            captions.append(caption_of(scene, vocabulary, random).text)
        return np.stack(images), captions

    def images(self, step: int) -> UInt8[np.ndarray, "B h w 3"]:
        """Returns the high-resolution pictures of a step."""
        return self.captioned(step)[0]

    def captions(self, seed: int) -> Iterator[Caption]:
        """Yields labelled captions of training scenes without end, for the text encoder."""
        return training_captions(self.sprites.vocabulary, self.board, seed)

    @property
    def label_classes(self) -> Mapping[str, int]:
        """Classes of each label that the captions' nouns have."""
        return label_classes(self.sprites.vocabulary)

    @property
    def subjects(self) -> Mapping[str, Sequence[str]]:
        """Returns the objects, styles and backgrounds that captions name."""
        vocabulary = self.sprites.vocabulary
        return {
            "objects": [each.singular for each in vocabulary.objects],
            "styles": list(vocabulary.styles.values()),
            "backgrounds": list(vocabulary.backgrounds),
        }
