"""Networks that turn pictures into features, and sets of pictures into their moments."""

from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8

from training.evaluation.distances.frechet import FeatureMoments
from training.evaluation.pictures.reading import PictureSet

BATCH = 32


class Features(Protocol):
    """A network that describes pictures.

    Attributes:
        name: Of the network and its weights.
    """

    @property
    def name(self) -> str:
        """Of the network and its weights."""

    def __call__(self, images: UInt8[np.ndarray, "B h w 3"]) -> Float[np.ndarray, "B D"]:
        """Returns the features of pictures."""


def moments_of(pictures: PictureSet, features: Features) -> FeatureMoments:
    """Returns the moments of the features of a set."""
    moments = FeatureMoments()
    for batch in pictures.batches(BATCH):
        moments.add(features(batch))
    return moments
