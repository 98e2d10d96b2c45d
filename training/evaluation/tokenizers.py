"""Measures a tokenizer: how well it reproduces pictures, and how much of its codebook it uses."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from services.pictures.low_resolution import low_resolution_view
from training.data.scenes import Scene, render
from training.evaluation.fidelity import codebook_use, psnr_db
from training.evaluation.scenes import score
from training.evaluation.shares import Share, share_of
from training.evaluation.testbed import Testbed
from training.tasks.frozen import FrozenTokenizer

BATCH = 8


@dataclass(frozen=True, kw_only=True)
class TokenizerReport:
    """What came of measuring one tokenizer.

    Attributes:
        side_px: Side of the pictures.
        psnr_db: Peak signal to noise ratio of the reconstructions, mean over the pictures.
        codes: Size of the codebook.
        codes_used: Codes that occur at least once.
        perplexity: Codes that would be in use were all used equally: 2 to the entropy in bits.
        all_right: Share of reconstructions in which the detector reads what the scene shows.
    """

    side_px: int
    psnr_db: float
    codes: int
    codes_used: int
    perplexity: float
    all_right: Share

    def as_json(self) -> dict[str, object]:
        """Returns it as plain numbers."""
        return {**vars(self), "all_right": self.all_right.as_json()}


def measure_tokenizer(
    tokenizer: FrozenTokenizer,
    scenes: Sequence[Scene],
    testbed: Testbed,
) -> TokenizerReport:
    """Encodes and decodes scenes, at the tokenizer's own resolution.

    Args:
        tokenizer: The one to measure.
        scenes: What the pictures show; at least one.
        testbed: The artwork and the detector.

    Raises:
        ValueError: the tokenizer is for neither size of the testbed's pictures.
    """
    side = tokenizer.config.image_size
    if side not in (testbed.side_px, testbed.low_side_px):
        raise ValueError(
            f"expected a tokenizer for {testbed.side_px} px or {testbed.low_side_px} px, "
            f"got one for {side} px"
        )
    decibels, right = [], []
    used = np.zeros(tokenizer.config.codebook_size, np.int64)
    for start in range(0, len(scenes), BATCH):
        batch = scenes[start : start + BATCH]
        images = np.stack([view_of(scene, testbed, side) for scene in batch])
        ids = np.asarray(tokenizer.ids(images))
        used += np.bincount(ids.ravel(), minlength=len(used))
        again = tokenizer.pictures(jnp.asarray(ids))
        decibels += [psnr_db(image, copy) for image, copy in zip(images, again, strict=True)]
        right += [
            score(scene, testbed.detector.read(copy)).all
            for scene, copy in zip(batch, again, strict=True)
        ]
    codes_used, perplexity = codebook_use(used)
    return TokenizerReport(
        side_px=side,
        psnr_db=float(np.mean(decibels)),
        codes=len(used),
        codes_used=codes_used,
        perplexity=perplexity,
        all_right=share_of(right),
    )


def view_of(scene: Scene, testbed: Testbed, side_px: int) -> UInt8[np.ndarray, "h w 3"]:
    """Draws a scene at full size and reduces it to the size that a tokenizer reads."""
    return low_resolution_view(render(scene, testbed.sprites, testbed.side_px), side_px)


def tokenizer_folders(checkpoints: Path) -> dict[str, Path]:
    """Returns where the two tokenizers of a checkpoint root lie."""
    return {name: checkpoints / "tokenizer" / name for name in ("low", "high")}
