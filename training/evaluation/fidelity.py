"""How close a copy of a picture is to it, and how much of a codebook copies use."""

import numpy as np
from jaxtyping import Float, Int, UInt8

_WINDOW, _DEVIATION = 11, 1.5  # of SSIM, in pixels
_STABILISERS = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr_db(image: UInt8[np.ndarray, "h w 3"], copy: UInt8[np.ndarray, "h w 3"]) -> float:
    """Returns the peak signal to noise ratio in decibels; 100 for an exact copy."""
    error = np.mean(np.square(image.astype(np.float64) - copy.astype(np.float64)))
    return 100.0 if error == 0 else float(min(100.0, 10 * np.log10(255.0**2 / error)))


def ssim(image: UInt8[np.ndarray, "h w 3"], copy: UInt8[np.ndarray, "h w 3"]) -> float:
    """Returns the structural similarity, at most 1: mean over windows inside and channels.

    Raises:
        ValueError: the pictures are smaller than a window.

    Source: Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural
    Similarity", equation 13, with its Gaussian window of 11 px.
    """
    if min(image.shape[:2]) < _WINDOW:
        raise ValueError(f"SSIM: expected sides of at least {_WINDOW} px, got {image.shape[:2]}")
    x, y = image.astype(np.float64), copy.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = _STABILISERS
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return float(np.mean(luminance * structure))


def codebook_use(counts: Int[np.ndarray, " K"]) -> tuple[int, float]:
    """Returns how many codes occur, and their perplexity: 2 to the entropy in bits.

    Args:
        counts: How often each code occurs; one of them at least once.
    """
    share = counts[counts > 0] / counts.sum()
    return len(share), float(np.exp(-np.sum(share * np.log(share))))


def _blur(values: Float[np.ndarray, "h w C"]) -> Float[np.ndarray, "h2 w2 C"]:
    """Averages every whole window, weighted by a Gaussian."""
    at = np.arange(_WINDOW) - _WINDOW // 2
    weights = np.exp(-0.5 * (at / _DEVIATION) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        values = np.lib.stride_tricks.sliding_window_view(values, _WINDOW, axis) @ weights
    return values
