"""The discriminator of a VQGAN: patchwise, trained with the hinge loss.

Source: Isola et al. 2017, "Image-to-Image Translation"; Esser et al. 2021, section 3.1.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class PatchDiscriminator(nnx.Module):
    """Scores patches: three strided convolutions, then one score a position."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        """Builds it `width` channels wide at half resolution, twice and four times after."""
        widths = (3, width, 2 * width, 4 * width)
        self.layers = nnx.List(
            [
                nnx.Conv(inputs, outputs, (4, 4), strides=2, padding="SAME", rngs=rngs)
                for inputs, outputs in pairwise(widths)
            ]
        )
        self.norms = nnx.List(
            [nnx.GroupNorm(outputs, num_groups=outputs // 8, rngs=rngs) for outputs in widths[2:]]
        )
        self.head = nnx.Conv(widths[-1], 1, (4, 4), padding="SAME", rngs=rngs)

    def __call__(self, images: Float[Array, "B h w 3"]) -> Float[Array, "B h/8 w/8 1"]:
        """Returns a score a patch: positive looks real."""
        features = jax.nn.leaky_relu(self.layers[0](images), 0.2)
        for layer, norm in zip(list(self.layers)[1:], self.norms, strict=True):
            features = jax.nn.leaky_relu(norm(layer(features)), 0.2)
        return self.head(features)


def discriminator_loss(real: Float[Array, "..."], fake: Float[Array, "..."]) -> Float[Array, ""]:
    """Hinge loss: real patches above 1, fake ones below -1."""
    return 0.5 * (jax.nn.relu(1 - real).mean() + jax.nn.relu(1 + fake).mean())


def generator_loss(fake: Float[Array, "..."]) -> Float[Array, ""]:
    """Negative mean score of fake patches."""
    return -jnp.mean(fake)
