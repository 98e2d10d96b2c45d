"""The LPIPS distance of two pictures.

distance = sum over layers of the mean over positions of w . (a / |a| - b / |b|)^2, with a and b the
channels of both pictures at a position of a layer, and w the layer's non-negative weights.

Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
section 3, equation 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from services.nn.bf16_matmul import bf16_matmul
from training.perceptual.backbones import Backbone

# Mean and deviation of ImageNet's channels on the scale [-1, 1].
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)
_EPSILON = 1e-10  # keeps the gradient of a norm finite where all channels are zero


@dataclass(frozen=True, kw_only=True)
class Lpips:
    """A backbone with its weights and the weights of the compared channels.

    Attributes:
        backbone: Which network.
        weights: "convolutions.I.kernel" [h w C D], "convolutions.I.bias" [D] and
            "heads.I" [D], float32.
        fingerprint: Name of the network and 16 hex digits of the sha256 of its weights, such as
            "lpips-alex:0123456789abcdef".
    """

    backbone: Backbone
    weights: Mapping[str, np.ndarray]
    fingerprint: str

    def __call__(
        self,
        images: Float[Array | np.ndarray, "B h w 3"],
        references: Float[Array | np.ndarray, "B h w 3"],
    ) -> Float[Array, " B"]:
        """Returns the distance of each image from its reference, at least 0.

        Args:
            images: Pictures in [-1, 1].
            references: As many pictures of the same size.

        Raises:
            ValueError: the pictures are too small for the network's pooling.
        """
        height, width = images.shape[1:3]
        if min(height, width) < self.backbone.smallest_px:
            raise ValueError(
                f"LPIPS {self.backbone.name} compares pictures of at least "
                f"{self.backbone.smallest_px} px a side, got {height} x {width} px"
            )
        layers = zip(self._features(images), self._features(references), strict=True)
        total = jnp.zeros(images.shape[0], jnp.float32)
        for index, (ours, theirs) in enumerate(layers):
            squared = (_unit(ours) - _unit(theirs)) ** 2
            total += jnp.mean(squared @ self.weights[f"heads.{index}"], axis=(1, 2))
        return total

    def _features(
        self, images: Float[Array | np.ndarray, "B h w 3"]
    ) -> list[Float[Array, "B ..."]]:
        """Returns the rectified outputs of the compared convolutions."""
        backbone = self.backbone
        features, compared = jnp.asarray((images - _SHIFT) / _SCALE), []
        for index in range(backbone.convolutions):
            if index in backbone.pooled:
                features = _max_pool(features, backbone.pool_window)
            kernel = self.weights[f"convolutions.{index}.kernel"]
            if index == 0:
                features = _stem(features, kernel, backbone.stem_stride, backbone.stem_padding)
            else:
                features = _convolution(features, kernel)
            features = jax.nn.relu(features + self.weights[f"convolutions.{index}.bias"])
            if index in backbone.compared:
                compared.append(features)
        return compared


def _stem(
    images: Float[Array, "B h w 3"], kernel: np.ndarray, stride: int, padding: int
) -> Float[Array, "B h2 w2 D"]:
    """Convolves the picture in float32: rounding it would hide small differences."""
    return lax.conv_general_dilated(
        images,
        jnp.asarray(kernel),
        window_strides=(stride, stride),
        padding=[(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _convolution(features: Float[Array, "B h w C"], kernel: np.ndarray) -> Float[Array, "B h w D"]:
    """Convolves as one product of matrices: bfloat16 factors, float32 sums.

    XLA's CPU backend uses the matrix units of recent CPUs for products, not for convolutions. The
    gradient of four pictures of 128 px through AlexNet took 0.05 s this way and 0.09 s with
    float32 convolutions, on two cores of an Intel Xeon with AMX, busy with other work (the fastest
    of 20 runs each).
    """
    side, margin = kernel.shape[0], kernel.shape[0] // 2
    batch, height, width, _ = features.shape
    padded = jnp.pad(
        features.astype(jnp.bfloat16), ((0, 0), (margin, margin), (margin, margin), (0, 0))
    )
    patches = jnp.concatenate(
        [
            padded[:, row : row + height, column : column + width]
            for row in range(side)
            for column in range(side)
        ],
        axis=-1,
    )
    product = bf16_matmul(
        patches.reshape(batch * height * width, -1),
        jnp.asarray(kernel).reshape(-1, kernel.shape[-1]),
    )
    return product.reshape(batch, height, width, -1)


def _max_pool(features: Float[Array, "B h w C"], window: int) -> Float[Array, "B h2 w2 C"]:
    """Takes maxima of square windows 2 apart; none reaches over the border."""
    return lax.reduce_window(
        features, -jnp.inf, lax.max, (1, window, window, 1), (1, 2, 2, 1), "VALID"
    )


def _unit(features: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
    """Scales the channels of each position to length 1."""
    return features * lax.rsqrt(jnp.sum(features**2, axis=-1, keepdims=True) + _EPSILON)
