"""The losses of a tokenizer and their weights.

loss = |x - y| + |x - y|^2 + codebook + 0.25 commitment + 0.05 perceptual + 0.1 adversarial

A recipe may add `edges` times the error of the differences between neighbouring pixels (Mathieu et
al. 2016, "Deep multi-scale video prediction beyond mean square error", section 3.2, here squared),
relative to each picture's own: a picture of 64 px is too small for a perceptual network, errors of
pixels alone leave thin lines out first, and absolute ones whatever stands out little.

The adversarial loss has the constant weight that Muse gives it. VQGAN scales it at each step by a
ratio of gradient norms at the decoder's last kernel instead (Esser et al. 2021, equation 7); Muse
lists one number, as for the perceptual loss, and no such ratio, so the ratio is an option.

Source: Esser et al. 2021, section 3.1; Muse, Table 5.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Squared differences added to an image's own, whose pixels span 2: a tenth of what a drawn object
# has, so that an empty image's noise is not all that counts.
FAINT_EDGES = 0.01


class PerceptualDistance(Protocol):
    """A distance between pictures that a trained network measures, such as LPIPS."""

    @property
    def fingerprint(self) -> str:
        """Name of the network and a digest of its weights, for training.json."""

    def __call__(
        self, images: Float[Array, "B h w 3"], references: Float[Array, "B h w 3"]
    ) -> Float[Array, " B"]:
        """Returns the distance of each image from its reference, both in [-1, 1]."""


@dataclass(frozen=True, kw_only=True)
class TokenizerLosses:
    """Weights of the losses (Muse, Table 5; the commitment of VQ-VAE: docs/method.md).

    Attributes:
        commitment: Encoder outputs to their codes.
        perceptual: Distance of reconstruction and image in a trained network, if one is given.
        edges: Relative squared error of the differences between neighbouring pixels.
        entropy: Penalty on codes that are undecided at a position, or unequal over all.
        entropy_temperature: Squared distance that makes a code e times less likely there.
        adversarial: Generator's loss against the discriminator, from `adversarial_start_step` on.
        adaptive_adversarial: Whether `adversarial` multiplies VQGAN's ratio of gradient norms
            instead of being the weight itself.
        adversarial_start_step: First step that trains the discriminator and against it.
        discriminator_width: Its channels at half resolution, a multiple of 4.
        lecam: LeCam regularisation of the discriminator.
        r1: R1 regularisation of the discriminator.
        usage_decay: Of the running mean of how often each code is used.
        revive_below: Share of a fair use under which a code is replaced.

    Raises:
        ValueError: a number is out of its range.
    """

    commitment: float = 0.25
    perceptual: float = 0.05
    edges: float = 0.0
    entropy: float = 0.0
    entropy_temperature: float = 0.01
    adversarial: float = 0.1
    adaptive_adversarial: bool = False
    adversarial_start_step: int = 50_000
    discriminator_width: int = 64
    lecam: float = 0.0
    r1: float = 0.0
    usage_decay: float = 0.99
    revive_below: float = 0.03

    def __post_init__(self) -> None:
        weights = ("commitment", "perceptual", "edges", "entropy", "adversarial", "lecam", "r1")
        for name in (*weights, "adversarial_start_step"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"losses.{name} must be at least 0 and finite, got {value}")
        if not (self.entropy_temperature > 0 and math.isfinite(self.entropy_temperature)):
            raise ValueError(
                "losses.entropy_temperature must be more than 0 and finite, "
                f"got {self.entropy_temperature}"
            )
        if self.discriminator_width < 4 or self.discriminator_width % 4:
            raise ValueError(
                "losses.discriminator_width must be a multiple of 4, "
                f"got {self.discriminator_width}"
            )
        for name in ("usage_decay", "revive_below"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"losses.{name} must be in [0, 1), got {getattr(self, name)}")


def reconstruction_loss(
    fake: Float[Array, "B h w 3"],
    images: Float[Array, "B h w 3"],
    losses: TokenizerLosses,
    perceptual: PerceptualDistance | None,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Returns how far reconstructions are from images, and scalars to report.

    Args:
        fake: Reconstructions, about in [-1, 1].
        images: The images, in [-1, 1].
        losses: Weights.
        perceptual: Distance of the perceptual loss; None leaves that loss out.
    """
    squared = jnp.mean((fake - images) ** 2)
    loss = jnp.mean(jnp.abs(fake - images)) + squared + losses.edges * edge_error(fake, images)
    metrics = {"psnr_db": 10 * jnp.log10(4.0 / squared)}  # pixels span 2 in [-1, 1]
    if perceptual is not None:
        metrics["perceptual"] = jnp.mean(perceptual(fake, images))
        loss += losses.perceptual * metrics["perceptual"]
    return loss, metrics


def edge_error(fake: Float[Array, "B h w 3"], images: Float[Array, "B h w 3"]) -> Float[Array, ""]:
    """Returns the squared error of differences between neighbours over those of the image itself.

    Each image's error is divided by its own squared differences, and then the mean is taken: 0 is
    exact, and 1 is about what a picture of one colour has.
    """
    return jnp.mean(_edges(fake - images) / (_edges(images) + FAINT_EDGES))


def _edges(images: Float[Array, "B h w 3"]) -> Float[Array, " B"]:
    """Returns each image's mean squared difference between neighbours, summed over both axes."""
    down, along = jnp.diff(images, axis=1), jnp.diff(images, axis=2)
    return jnp.mean(down**2, axis=(1, 2, 3)) + jnp.mean(along**2, axis=(1, 2, 3))


def quantization_loss(
    features: Float[Array, "B h w C"],
    codes: Float[Array, "B h w C"],
    codebook: Float[Array, "V C"],
    losses: TokenizerLosses,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Returns how far encoder outputs and codes are from each other, and scalars to report.

    Args:
        features: Encoder outputs.
        codes: The nearest code of each, with a gradient to the codebook.
        codebook: All codes.
        losses: Weights.
    """
    metrics = {"commitment": jnp.mean((features - jax.lax.stop_gradient(codes)) ** 2)}
    loss = jnp.mean((codes - jax.lax.stop_gradient(features)) ** 2)
    loss += losses.commitment * metrics["commitment"]
    if losses.entropy > 0:
        metrics["entropy"] = entropy_penalty(features, codebook, losses.entropy_temperature)
        loss += losses.entropy * metrics["entropy"]
    return loss, metrics


def entropy_penalty(
    features: Float[Array, "B h w C"], codebook: Float[Array, "V C"], temperature: float
) -> Float[Array, ""]:
    """Returns the mean entropy of a position's codes, less the entropy of their mean.

    It is least when each position is sure of its code and all codes are used equally. A code's
    probability at a position falls with its squared distance: softmax(-|z - c|^2 / temperature).
    One row of the grids is computed at a time, and again for the gradient, which bounds memory to
    B * w * V numbers.

    Args:
        features: Encoder outputs.
        codebook: All codes.
        temperature: Of the softmax, above 0.

    Source: Yu et al. 2023, "Language Model Beats Diffusion", section 3.1 (there of codes of bits).
    """

    @jax.checkpoint
    def of_row(row: Float[Array, "B w C"]) -> tuple[Float[Array, ""], Float[Array, " V"]]:
        # |z - c|^2 without |z|^2, which the softmax takes away.
        distances = jnp.sum(codebook**2, axis=-1) - 2 * row @ codebook.T
        logs = jax.nn.log_softmax(-distances / temperature)
        shares = jnp.exp(logs)
        return -jnp.mean(jnp.sum(shares * logs, axis=-1)), jnp.mean(shares, axis=(0, 1))

    entropies, shares = jax.lax.map(of_row, jnp.moveaxis(features, 1, 0))
    mean = shares.mean(axis=0)
    return entropies.mean() + jnp.sum(mean * jnp.log(mean + 1e-10))
