"""The Fréchet distance between two sets of features, each taken as a normal distribution.

d^2 = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), with the mean m and the covariance C of each set.

Source: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
Equilibrium", equation 6, who take the features of Inception and call it FID.
"""

import numpy as np
from jaxtyping import Float


class FeatureMoments:
    """Mean and covariance of features, summed up batch by batch in float64.

    Attributes:
        count: Features added.
    """

    def __init__(self) -> None:
        """Begins without features."""
        self.count = 0
        self._total, self._products = np.zeros(1), np.zeros((1, 1))
        self._origin: Float[np.ndarray, " D"] | None = None

    def add(self, batch: Float[np.ndarray, "B D"]) -> None:
        """Adds at least one picture's features."""
        if self._origin is None:  # near the mean, so that the products lose no digits
            self._origin = batch[0].astype(np.float64)
        centred = batch.astype(np.float64) - self._origin
        self.count += len(centred)
        self._total = self._total + centred.sum(axis=0)
        self._products = self._products + centred.T @ centred

    def mean(self) -> Float[np.ndarray, " D"]:
        """Returns the mean of the features."""
        assert self._origin is not None
        return self._origin + self._total / self.count

    def covariance(self) -> Float[np.ndarray, "D D"]:
        """Returns their covariance, with the divisor of an unbiased estimate."""
        offset = self._total / self.count
        return (self._products - self.count * np.outer(offset, offset)) / (self.count - 1)


def frechet_distance(first: FeatureMoments, second: FeatureMoments) -> float:
    """Returns the squared Fréchet distance of two sets of features of one network, at least 0.

    Raises:
        ValueError: a set has fewer than two pictures.
    """
    if min(first.count, second.count) < 2:
        raise ValueError(
            f"expected at least 2 pictures in each set, got {first.count} and {second.count}"
        )
    ours, theirs = first.covariance(), second.covariance()
    root = _square_root(ours)
    # The trace of (C1 C2)^(1/2) is that of the symmetric (C1^(1/2) C2 C1^(1/2))^(1/2).
    eigenvalues = np.linalg.eigvalsh(root @ theirs @ root)
    geometric = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    apart = np.square(first.mean() - second.mean()).sum()
    return max(0.0, float(apart + np.trace(ours) + np.trace(theirs) - 2 * geometric))


def _square_root(covariance: Float[np.ndarray, "D D"]) -> Float[np.ndarray, "D D"]:
    """Returns the symmetric square root of a positive semi-definite matrix."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(eigenvalues, 0))) @ vectors.T
