"""Inception as FID takes it: torch-fidelity's extractor with local weights."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth of torch-fidelity's release v0.2.0"


class Inception:
    """The features of FID: 2048 of the pooling before Inception's last layer.

    Attributes:
        name: "Inception".
    """

    name = "Inception"

    def __init__(self, file: Path) -> None:
        """Loads the network; downloads nothing.

        Args:
            file: State of torch-fidelity's Inception, which has TensorFlow's weights.

        Raises:
            ValueError: torch-fidelity is missing or broken, or the file holds another network.
            OSError: the file cannot be read.
        """
        try:
            import torch
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision of another build
            raise ValueError(f"FID needs pip install 'muse[metrics]', got {error}") from error
        try:
            torch.load(file, weights_only=True)  # torch-fidelity itself trusts the pickle
            self._extractor = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(file)
            )
        except OSError:
            raise
        except Exception as error:  # a file of something else fails in many ways
            message = str(error).strip().split("\n")[0]
            raise ValueError(
                f"{file}: expected Inception's weights ({_WEIGHTS}), got {message}"
            ) from error
        self._torch = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._extractor.to(self._device)

    def __call__(self, images: UInt8[np.ndarray, "B h w 3"]) -> Float[np.ndarray, "B 2048"]:
        """Returns the features of pictures, which the extractor scales to 299 px."""
        planes = self._torch.from_numpy(images).permute(0, 3, 1, 2).to(self._device)
        with self._torch.inference_mode():
            (features,) = self._extractor(planes)
        return features.cpu().numpy()
