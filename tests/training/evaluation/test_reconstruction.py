"""Reconstructions measured: PSNR, SSIM, LPIPS, codes and distances of exact and coarse copies."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.training.evaluation.remembering_tokenizer import RememberingTokenizer
from training.evaluation.fidelity import codebook_use, psnr_db, ssim
from training.evaluation.reconstruction import measure_reconstruction

SIDE_PX = 16


class Colours:
    """Describes a picture by its colours' deviations."""

    name = "deviations"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return images.std(axis=(1, 2))


def average_distance(images: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Stands in for LPIPS: the mean difference of each picture in [-1, 1]."""
    return np.abs(np.asarray(images) - np.asarray(copies)).mean(axis=(1, 2, 3))


average_distance.fingerprint = "average"  # type: ignore[attr-defined]


def batches(side: int) -> Iterator[np.ndarray]:
    """Draws seven noisy pictures in batches of three."""
    random = np.random.default_rng(0)
    for size in (3, 3, 1):
        yield random.integers(0, 256, (size, side, side, 3)).astype(np.uint8)


def measured(*, exact: bool, side: int = SIDE_PX) -> tuple[Any, list[np.ndarray]]:
    """Measures a tokenizer that remembers."""
    tokenizer: Any = RememberingTokenizer(SIDE_PX, exact=exact)
    lpips: Any = average_distance
    return measure_reconstruction(tokenizer, batches(side), lpips=lpips, networks=[Colours()])


def test_an_exact_tokenizer_and_a_coarse_one() -> None:
    (perfect, shown), (coarse, _) = measured(exact=True), measured(exact=False)
    assert (perfect.pictures, perfect.side_px) == (7, SIDE_PX)
    assert (perfect.psnr_db, perfect.ssim, perfect.lpips) == (100.0, pytest.approx(1), 0)
    assert (perfect.codes, perfect.codes_used) == (64, 7)
    assert perfect.perplexity == pytest.approx(7)
    assert perfect.distances == {"deviations": pytest.approx(0, abs=1e-6)}
    assert len(shown) == 6  # the first picture of each batch beside its copy
    assert coarse.psnr_db < 15
    assert coarse.ssim < 0.1
    assert coarse.lpips > 0.3
    assert coarse.distances["deviations"] > 100
    assert coarse.as_json()["lpips_network"] == "average"


def test_larger_pictures_are_reduced_as_training_reduces_them() -> None:
    report, shown = measured(exact=True, side=2 * SIDE_PX)
    assert (report.side_px, shown[0].shape) == (SIDE_PX, (SIDE_PX, SIDE_PX, 3))


def test_what_no_network_was_given_for_is_not_measured() -> None:
    tokenizer: Any = RememberingTokenizer(SIDE_PX, exact=True)
    report, _ = measure_reconstruction(tokenizer, batches(SIDE_PX), lpips=None, networks=[])
    assert (report.lpips, report.lpips_network, report.distances) == (None, None, {})


def test_ssim_is_that_of_its_formula_in_one_window() -> None:
    random = np.random.default_rng(1)
    image, copy = (random.integers(0, 256, (11, 11, 3)).astype(np.uint8) for _ in range(2))
    at = np.arange(11) - 5
    weights = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for channel in range(3):
        x, y = (each[..., channel].astype(float) for each in (image, copy))
        mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
        variance_x = (weights * (x - mean_x) ** 2).sum()
        variance_y = (weights * (y - mean_y) ** 2).sum()
        covariance = (weights * (x - mean_x) * (y - mean_y)).sum()
        c1, c2 = 6.5025, 58.5225
        values.append(
            (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
            / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))
        )  # fmt: skip
    assert ssim(image, copy) == pytest.approx(np.mean(values), rel=1e-9)
    assert ssim(image, image) == pytest.approx(1)
    with pytest.raises(ValueError, match="at least 11 px"):
        ssim(image[:10], copy[:10])


def test_psnr_and_the_use_of_a_codebook() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    assert psnr_db(image, image) == 100
    assert psnr_db(image, image + 1) == pytest.approx(48.13, abs=0.01)
    used, perplexity = codebook_use(np.array([5, 0, 5, 0]))
    assert used == 2
    assert perplexity == pytest.approx(2)
