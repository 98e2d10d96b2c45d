"""Measures a tokenizer: how well it reproduces pictures, and how much of its codebook it uses."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from training.data.scenes import Scene, half_size, render
from training.data.sprites import SpriteSet
from training.evaluation.detector import Detector
from training.evaluation.scenes import judge
from training.tasks.frozen import FrozenTokenizer

_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class TokenizerReport:
    """What came of measuring one tokenizer.

    Attributes:
        pictures: Pictures measured on.
        side_px: Their side.
        psnr_db: Peak signal to noise ratio of the reconstructions, mean over the pictures.
        codes: Size of the codebook.
        codes_used: Codes that occur at least once.
        perplexity: Codes that would be in use were all used equally: 2 to the entropy in bits.
        all_right: Share of reconstructions in which the detector reads what the scene shows.
    """

    pictures: int
    side_px: int
    psnr_db: float
    codes: int
    codes_used: int
    perplexity: float
    all_right: float

    def as_json(self) -> dict[str, float | int]:
        """Returns it as plain numbers."""
        return asdict(self)


def measure_tokenizer(
    tokenizer: FrozenTokenizer,
    scenes: Sequence[Scene],
    sprites: SpriteSet,
    *,
    picture_side_px: int,
    detector: Detector,
) -> TokenizerReport:
    """Sends scenes through a tokenizer and back.

    Args:
        tokenizer: The one to measure.
        scenes: What the pictures show; at least one.
        sprites: The artwork.
        picture_side_px: Side of the full pictures; a tokenizer of half that gets them halved, as
            in training.
        detector: Reads the reconstructions.

    Raises:
        ValueError: the tokenizer is for neither size.
    """
    side = tokenizer.config.image_size
    if side not in (picture_side_px, picture_side_px // 2):
        raise ValueError(
            f"expected a tokenizer for {picture_side_px} px or {picture_side_px // 2} px, "
            f"got one for {side} px"
        )
    decibels, right = [], []
    used = np.zeros(tokenizer.config.codebook_size, np.int64)
    for start in range(0, len(scenes), _BATCH):
        batch = scenes[start : start + _BATCH]
        images = np.stack([render(scene, sprites, picture_side_px) for scene in batch])
        if side != picture_side_px:
            images = half_size(images)
        ids = np.asarray(tokenizer.ids(images))
        used += np.bincount(ids.ravel(), minlength=len(used))
        again = tokenizer.pictures(jnp.asarray(ids))
        decibels += [psnr_db(image, copy) for image, copy in zip(images, again, strict=True)]
        right += [
            judge(scene, detector.read(copy)).all for scene, copy in zip(batch, again, strict=True)
        ]
    share = used[used > 0] / used.sum()
    return TokenizerReport(
        pictures=len(scenes),
        side_px=side,
        psnr_db=float(np.mean(decibels)),
        codes=len(used),
        codes_used=int((used > 0).sum()),
        perplexity=float(np.exp(-np.sum(share * np.log(share)))),
        all_right=float(np.mean(right)),
    )


def psnr_db(image: UInt8[np.ndarray, "h w 3"], copy: UInt8[np.ndarray, "h w 3"]) -> float:
    """Returns the peak signal to noise ratio in decibels; 100 for an exact copy."""
    error = np.mean(np.square(image.astype(np.float64) - copy.astype(np.float64)))
    return 100.0 if error == 0 else float(min(100.0, 10 * np.log10(255.0**2 / error)))


def tokenizer_folders(checkpoints: Path) -> dict[str, Path]:
    """Returns where the two tokenizers of a checkpoint root lie."""
    return {name: checkpoints / "tokenizer" / name for name in ("low", "high")}
