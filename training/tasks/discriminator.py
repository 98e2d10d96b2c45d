"""The discriminator of a VQGAN: scores patches, and is trained with the hinge loss.

Source: Isola et al. 2017, "Image-to-Image Translation"; Esser et al. 2021, section 3.1.
"""

from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float

from services.nn.parameters import parameters_of, with_parameters
from training.optimizers import Parameters
from training.state import TrainState, apply_gradients, new_train_state
from training.tasks.adversarial_losses import discriminator_loss, lecam_penalty, r1_penalty
from training.tasks.tokenizer_losses import TokenizerLosses

SCORE_DECAY = 0.99  # of the running means of scores, as in the code of LeCam regularisation


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


class DiscriminatorState(NamedTuple):
    """The discriminator, and running means of its scores of real and of fake patches."""

    network: TrainState
    mean_real: Float[Array, ""]
    mean_fake: Float[Array, ""]


class Adversary:
    """The discriminator and its training; pure functions of its state."""

    def __init__(
        self, losses: TokenizerLosses, optimizer: optax.GradientTransformation, *, seed: int
    ) -> None:
        """Prepares it.

        Args:
            losses: Width of the network and weights of its regularisers.
            optimizer: Of its parameters.
            seed: Of its initial parameters.
        """
        self._losses, self._optimizer, self._seed = losses, optimizer, seed

    def _build(self) -> PatchDiscriminator:
        return PatchDiscriminator(self._losses.discriminator_width, rngs=nnx.Rngs(self._seed))

    def initial_state(self) -> DiscriminatorState:
        """Returns fresh parameters, and scores of 0."""
        network = new_train_state(parameters_of(self._build()), self._optimizer)
        return DiscriminatorState(network, jnp.zeros(()), jnp.zeros(()))

    def scores(
        self, params: Parameters, images: Float[Array, "B h w 3"]
    ) -> Float[Array, "B h/8 w/8 1"]:
        """Returns a score a patch: positive looks real."""
        return with_parameters(self._build, params)(images)

    def train_step(
        self,
        state: DiscriminatorState,
        real: Float[Array, "B h w 3"],
        fake: Float[Array, "B h w 3"],
    ) -> tuple[DiscriminatorState, dict[str, Array]]:
        """Takes one step of the discriminator; returns its state and scalars to report."""

        def loss(params: Parameters) -> tuple[Array, tuple[Array, Array, dict[str, Array]]]:
            of_real, of_fake = self.scores(params, real), self.scores(params, fake)
            total = discriminator_loss(of_real, of_fake)
            metrics = {"discriminator": total}
            if self._losses.lecam > 0:
                metrics["lecam"] = lecam_penalty(of_real, of_fake, state.mean_real, state.mean_fake)
                total += self._losses.lecam * metrics["lecam"]
            if self._losses.r1 > 0:
                metrics["r1"] = r1_penalty(lambda images: self.scores(params, images), real)
                total += self._losses.r1 * metrics["r1"]
            return total, (of_real.mean(), of_fake.mean(), metrics)

        gradients, (real_score, fake_score, metrics) = jax.grad(loss, has_aux=True)(
            state.network.params
        )
        network = apply_gradients(state.network, gradients, self._optimizer)
        mean_real = SCORE_DECAY * state.mean_real + (1 - SCORE_DECAY) * real_score
        mean_fake = SCORE_DECAY * state.mean_fake + (1 - SCORE_DECAY) * fake_score
        return DiscriminatorState(network, mean_real, mean_fake), metrics
