"""The adversarial losses of a VQGAN, as functions of the discriminator's scores.

Source: Esser et al. 2021, "Taming Transformers", section 3.1; Tseng et al. 2021, "Regularizing
Generative Adversarial Networks under Limited Data"; Mescheder et al. 2018, "Which Training Methods
for GANs do actually Converge?", section 4.1.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LARGEST_RATIO = 1e4  # of gradient norms, as in the code of VQGAN


def discriminator_loss(real: Float[Array, "..."], fake: Float[Array, "..."]) -> Float[Array, ""]:
    """Hinge loss: real patches above 1, fake ones below -1."""
    return 0.5 * (jax.nn.relu(1 - real).mean() + jax.nn.relu(1 + fake).mean())


def generator_loss(fake: Float[Array, "..."]) -> Float[Array, ""]:
    """Negative mean score of fake patches."""
    return -jnp.mean(fake)


def gradient_ratio(
    reconstruction: Float[Array, "..."], adversarial: Float[Array, "..."]
) -> Float[Array, ""]:
    """Returns the weight that gives the adversarial loss the reach of the reconstruction loss.

    Args:
        reconstruction: Gradient of the reconstruction loss at the decoder's last kernel.
        adversarial: Gradient of the generator's adversarial loss there.

    Source: Esser et al. 2021, equation 7; clipped as in its code.
    """
    ratio = jnp.linalg.norm(reconstruction.ravel()) / (jnp.linalg.norm(adversarial.ravel()) + 1e-6)
    return jnp.clip(ratio, 0.0, LARGEST_RATIO)


def lecam_penalty(
    real: Float[Array, "..."],
    fake: Float[Array, "..."],
    mean_real: Float[Array, ""],
    mean_fake: Float[Array, ""],
) -> Float[Array, ""]:
    """Keeps scores of real patches near the fake ones' running mean, and the other way round.

    Args:
        real: Scores of real patches.
        fake: Scores of fake patches.
        mean_real: Running mean of the scores of real patches.
        mean_fake: Running mean of the scores of fake patches.

    Source: Tseng et al. 2021, R_LC.
    """
    return jnp.mean((real - mean_fake) ** 2) + jnp.mean((fake - mean_real) ** 2)


def r1_penalty(
    score: Callable[[Float[Array, "B h w 3"]], Float[Array, "B ..."]],
    images: Float[Array, "B h w 3"],
) -> Float[Array, ""]:
    """Half the mean squared gradient norm of a real picture's score, the mean over its patches.

    Args:
        score: The discriminator.
        images: Real pictures.

    Source: Mescheder et al. 2018, section 4.1, R1.
    """

    def total(images: Float[Array, "B h w 3"]) -> Float[Array, ""]:
        patches = score(images)
        return patches.reshape(patches.shape[0], -1).mean(axis=1).sum()

    gradients = jax.grad(total)(images)
    return 0.5 * jnp.mean(jnp.sum(gradients**2, axis=(1, 2, 3)))
