"""Images through a tokenizer, and the gradients of its losses."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from services.tokenizer.model import Tokenizer
from training.optimizers import Parameters
from training.tasks.adversarial_losses import generator_loss, gradient_ratio
from training.tasks.tokenizer_losses import (
    PerceptualDistance,
    TokenizerLosses,
    quantization_loss,
    reconstruction_loss,
)

LAST_KERNEL = "decoder.head.kernel"


class Reconstruction(NamedTuple):
    """Images through a tokenizer.

    Attributes:
        fake: The reconstructed images, about in [-1, 1].
        quantization: Loss of encoder and codebook; 0 if they are frozen.
        features: Encoder outputs.
        ids: The nearest code of each.
        metrics: Scalars to report.
    """

    fake: Float[Array, "B h w 3"]
    quantization: Float[Array, ""]
    features: Float[Array, "B h/f w/f C"]
    ids: Int[Array, "B h/f w/f"]
    metrics: dict[str, Array]


def reconstruct(
    tokenizer: Tokenizer,
    images: Float[Array, "B h w 3"],
    losses: TokenizerLosses,
    *,
    decoder_alone: bool,
) -> Reconstruction:
    """Encodes and decodes images.

    Args:
        tokenizer: The tokenizer.
        images: In [-1, 1].
        losses: Weights of the losses of encoder and codebook.
        decoder_alone: Whether encoder and codebook are frozen.
    """
    features = tokenizer.encoder(images)
    ids = tokenizer.quantizer.ids(jax.lax.stop_gradient(features))
    codes = tokenizer.quantizer.codes(ids)
    if decoder_alone:
        return Reconstruction(tokenizer.decoder(codes), jnp.zeros(()), features, ids, {})
    # Straight through: the decoder sees codes, the encoder gets the decoder's gradient.
    fake = tokenizer.decoder(features + jax.lax.stop_gradient(codes - features))
    codebook = tokenizer.quantizer.codebook[...]
    quantization, metrics = quantization_loss(features, codes, codebook, losses)
    return Reconstruction(fake, quantization, features, ids, metrics)


def loss_gradients(
    forward: Callable[[Parameters], Reconstruction],
    params: Parameters,
    images: Float[Array, "B h w 3"],
    losses: TokenizerLosses,
    *,
    perceptual: PerceptualDistance | None = None,
    score: Callable[[Float[Array, "B h w 3"]], Float[Array, "B ..."]] | None = None,
) -> tuple[Parameters, Reconstruction, dict[str, Array]]:
    """Returns the gradients of what is trained, the reconstruction, and scalars to report.

    The losses of a picture are differentiated at the picture. From there `pull_back` leads to all
    parameters, and to the last kernel alone for each of both losses whose ratio is VQGAN's adaptive
    weight; the networks that compute the losses are passed once.

    The reported `loss` is without the adversarial part, which has no scale of its own: a run stops
    at a loss far above its first one.

    Args:
        forward: Reconstructs the images with given parameters.
        params: Parameters that are trained, the decoder's among them.
        images: In [-1, 1].
        losses: Weights.
        perceptual: Distance of the perceptual loss; None leaves that loss out.
        score: The discriminator; None leaves the adversarial loss out.
    """

    def outputs(params: Parameters) -> tuple[tuple[Array, Array], Reconstruction]:
        made = forward(params)
        return (made.fake, made.quantization), made

    (fake, quantization), pull_back, made = jax.vjp(outputs, params, has_aux=True)
    (loss, metrics), of_fake = jax.value_and_grad(reconstruction_loss, has_aux=True)(
        fake, images, losses, perceptual
    )
    if score is not None:
        fooling, of_fooling = jax.value_and_grad(lambda fake: generator_loss(score(fake)))(fake)
        weight = jnp.float32(losses.adversarial)
        if losses.adaptive_adversarial:
            none = jnp.zeros(())
            weight *= gradient_ratio(
                pull_back((of_fake, none))[0][LAST_KERNEL],
                pull_back((of_fooling, none))[0][LAST_KERNEL],
            )
        of_fake += weight * of_fooling
        metrics |= {"adversarial": fooling, "adversarial_weight": weight}
    (gradients,) = pull_back((of_fake, jnp.ones(())))
    return gradients, made, metrics | made.metrics | {"loss": loss + quantization}
