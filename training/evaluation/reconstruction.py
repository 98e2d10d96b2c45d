"""Measures how a tokenizer reproduces any set of pictures."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from services.pictures.low_resolution import low_resolution_view
from training.evaluation.distances.features import Features
from training.evaluation.distances.frechet import FeatureMoments, frechet_distance
from training.evaluation.fidelity import codebook_use, psnr_db, ssim
from training.perceptual.distance import Lpips
from training.pictures import to_float
from training.tasks.frozen import FrozenTokenizer


@dataclass(frozen=True, kw_only=True)
class ReconstructionReport:
    """What came of one tokenizer and one set; None is not measured.

    Attributes:
        pictures: Pictures in the set.
        side_px: Side at which they were compared: the tokenizer's.
        psnr_db: Peak signal to noise ratio, mean over the pictures.
        ssim: Structural similarity, mean over the pictures.
        lpips: LPIPS distance, mean over the pictures.
        lpips_network: Fingerprint of the LPIPS network.
        codes: Size of the codebook.
        codes_used: Codes that occur at least once.
        perplexity: Codes that would be in use were all used equally.
        distances: Fréchet distance between the reconstructions and the pictures, by network.
    """

    pictures: int
    side_px: int
    psnr_db: float
    ssim: float
    lpips: float | None
    lpips_network: str | None
    codes: int
    codes_used: int
    perplexity: float
    distances: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Returns it as plain numbers."""
        return asdict(self)


def measure_reconstruction(
    tokenizer: FrozenTokenizer,
    batches: Iterable[UInt8[np.ndarray, "B h w 3"]],
    *,
    lpips: Lpips | None,
    networks: Sequence[Features],
) -> tuple[ReconstructionReport, list[UInt8[np.ndarray, "h w 3"]]]:
    """Encodes and decodes pictures; returns the report, and each first picture and its copy.

    Args:
        tokenizer: The one to measure.
        batches: Square pictures, at least two in all; larger ones than the tokenizer's are reduced
            as training reduces them.
        lpips: Network of LPIPS; None does not measure it.
        networks: Networks of the Fréchet distances.
    """
    side = tokenizer.config.image_size
    counts = np.zeros(tokenizer.config.codebook_size, np.int64)
    decibels: list[float] = []
    similarities: list[float] = []
    distances: list[float] = []
    moments = [(FeatureMoments(), FeatureMoments()) for _ in networks]
    shown: list[UInt8[np.ndarray, "h w 3"]] = []
    for batch in batches:
        images = np.stack([low_resolution_view(image, side) for image in batch])
        ids = np.asarray(tokenizer.ids(images))
        copies = tokenizer.pictures(jnp.asarray(ids))
        counts += np.bincount(ids.ravel(), minlength=len(counts))
        for image, copy in zip(images, copies, strict=True):
            decibels.append(psnr_db(image, copy))
            similarities.append(ssim(image, copy))
        if lpips is not None:
            distances += np.asarray(lpips(to_float(images), to_float(copies))).tolist()
        for network, (real, made) in zip(networks, moments, strict=True):
            real.add(network(images))
            made.add(network(copies))
        shown += [images[0], copies[0]]
    codes_used, perplexity = codebook_use(counts)
    report = ReconstructionReport(
        pictures=len(decibels),
        side_px=side,
        psnr_db=float(np.mean(decibels)),
        ssim=float(np.mean(similarities)),
        lpips=float(np.mean(distances)) if lpips is not None else None,
        lpips_network=lpips.fingerprint if lpips is not None else None,
        codes=len(counts),
        codes_used=codes_used,
        perplexity=perplexity,
        distances={
            network.name: frechet_distance(real, made)
            for network, (real, made) in zip(networks, moments, strict=True)
        },
    )
    return report, shown
