"""The VQGAN task: reconstruct images through the codebook.

loss = |x - y| + |x - y|^2 + codebook + 0.25 commitment + 0.05 perceptual + 0.1 adversarial

A recipe may add `edges` |dx - dy|^2 of the differences between neighbouring pixels (Mathieu et al.
2016, "Deep multi-scale video prediction beyond mean square error", section 3.2, here squared): a
picture of 64 px is too small for a perceptual network, and squared errors of pixels alone leave
thin lines out first.

The adversarial loss has the constant weight that Muse gives it. VQGAN scales it at each step by a
ratio of gradient norms at the decoder's last kernel instead (Esser et al. 2021, equation 7); Muse
lists one number, as for the perceptual loss, and no such ratio.

The codebook is kept alive: a code that hardly anything was nearest to lately becomes an encoder
output of the current batch, so that no share of the codebook collapses.

Source: Esser et al. 2021, section 3.1; Muse, Table 5; code revival as Dhariwal et al. 2020,
"Jukebox", section 3.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8
from PIL import Image

from services.nn.parameters import parameters_of, with_parameters
from services.pictures.sheets import contact_sheet
from services.runtime.checkpoints.serialization import (
    codebook_fingerprint,
    round_to_bfloat16,
    save_checkpoint,
)
from services.tokenizer.config import TokenizerConfig
from services.tokenizer.model import Convolution, Tokenizer
from training.mesh import Execution, one_device
from training.optimizers import Parameters, Recipe, adam, optimizer_metrics
from training.pictures import to_float, to_uint8
from training.state import TrainState, apply_gradients, new_train_state
from training.tasks.discriminator import (
    PatchDiscriminator,
    discriminator_loss,
    generator_loss,
)

# Input channels from which training multiplies matrices in convolutions (Winograd's): step and
# gradient take a third of the time, and a long run does not mind the longer compilation.
LEAST_INPUTS = 24
SHOWN = 8  # images of a report


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
        edges: Squared errors of the differences between neighbouring pixels.
        adversarial: Generator's loss against the discriminator, from `adversarial_start_step` on.
        adversarial_start_step: First step that trains the discriminator and against it.
        discriminator_width: Its channels at half resolution.
        usage_decay: Of the running mean of how often each code is used.
        revive_below: Share of a fair use under which a code is replaced.
    """

    commitment: float = 0.25
    perceptual: float = 0.05
    edges: float = 0.0
    adversarial: float = 0.1
    adversarial_start_step: int = 50_000
    discriminator_width: int = 64
    usage_decay: float = 0.99
    revive_below: float = 0.03


class TokenizerState(NamedTuple):
    """The tokenizer, its adversary, and how often each code was used lately."""

    tokenizer: TrainState
    discriminator: TrainState
    usage: Float[Array, " V"]


class TokenizerTask:
    """Trains one tokenizer; see the module for the loss."""

    def __init__(
        self,
        config: TokenizerConfig,
        recipe: Recipe,
        losses: TokenizerLosses,
        images: Callable[[int], UInt8[np.ndarray, "B h w 3"]],
        *,
        resolution: str,
        seed: int = 0,
        perceptual: PerceptualDistance | None = None,
        initial: Mapping[str, np.ndarray] | None = None,
        execution: Execution | None = None,
    ) -> None:
        """Prepares the task.

        Args:
            config: Shape of the tokenizer.
            recipe: Its optimizer; the discriminator has the same.
            losses: Weights of the losses.
            images: Gives the images of a step, always the same ones.
            resolution: "low" or "high": which of the system's two tokenizers it is.
            seed: Of the initial parameters and of code revival.
            perceptual: Distance of the perceptual loss; None leaves that loss out.
            initial: Parameters to start from by name; those it lacks are drawn at random.
            execution: Devices and parts of a batch; by default one device.
        """
        self.config, self.recipe, self.losses = config, recipe, losses
        self.resolution, self.seed = resolution, seed
        self._images, self._perceptual = images, perceptual
        self.given = {
            name: np.asarray(value, np.float32) for name, value in (initial or {}).items()
        }
        self._execution = execution or one_device()
        self._optimizer = adam(recipe)
        self._reconstruct = jax.jit(
            self._compiled_reconstruction, out_shardings=self._execution.replicated
        )

    @property
    def name(self) -> str:
        """Of the progress bar."""
        return f"tokenizer {self.resolution}"

    def _build(self) -> Tokenizer:
        tokenizer = Tokenizer(self.config, rngs=nnx.Rngs(self.seed))
        for _, module in nnx.iter_graph(tokenizer):
            if isinstance(module, Convolution):
                module.in_products |= module.strides == 1 and module.in_features >= LEAST_INPUTS
        return tokenizer

    def _tokenizer(self, parameters: Parameters) -> Tokenizer:
        return with_parameters(self._build, parameters)

    def _build_discriminator(self) -> PatchDiscriminator:
        return PatchDiscriminator(self.losses.discriminator_width, rngs=nnx.Rngs(self.seed + 1))

    def initial_state(self, given: Mapping[str, Array]) -> TokenizerState:
        """Returns fresh parameters, or the given ones, with every code taken as in fair use."""
        parameters = parameters_of(self._build()) | dict(given)
        fair = jnp.full((self.config.codebook_size,), 1.0 / self.config.codebook_size)
        return TokenizerState(
            tokenizer=new_train_state(parameters, self._optimizer),
            discriminator=new_train_state(
                parameters_of(self._build_discriminator()), self._optimizer
            ),
            usage=fair,
        )

    def batch(self, step: int) -> UInt8[np.ndarray, "B h w 3"]:
        """Returns the images of a step."""
        return self._images(step)

    def phase(self, step: int) -> str:
        """Returns "adversarial" from the step on that trains the discriminator."""
        adversarial = self.losses.adversarial > 0 and step >= self.losses.adversarial_start_step
        return "adversarial" if adversarial else "reconstruction"

    def train_step(
        self,
        state: TokenizerState,
        batch: UInt8[Array, "B h w 3"],
        step: Int[Array, ""],
        phase: str,
    ) -> tuple[TokenizerState, dict[str, Array]]:
        """Takes one step of the tokenizer and, in the adversarial phase, of the discriminator."""
        adversarial = phase == "adversarial"
        images = to_float(batch)
        discriminator = with_parameters(self._build_discriminator, state.discriminator.params)
        (_, (metrics, fake, vectors, ids)), gradients = jax.value_and_grad(
            partial(
                self._loss, images=images, discriminator=discriminator if adversarial else None
            ),
            has_aux=True,
        )(state.tokenizer.params)
        tokenizer = apply_gradients(state.tokenizer, gradients, self._optimizer)
        usage, codebook, revived = self._revive(
            state.usage, tokenizer.params["quantizer.codebook"], vectors, ids, step
        )
        tokenizer = tokenizer._replace(params=tokenizer.params | {"quantizer.codebook": codebook})
        adversary = state.discriminator
        if adversarial:
            loss, discriminator_gradients = jax.value_and_grad(self._discriminator_loss)(
                adversary.params, images, fake
            )
            adversary = apply_gradients(adversary, discriminator_gradients, self._optimizer)
            metrics["discriminator"] = loss
        metrics |= optimizer_metrics(self.recipe, gradients, step) | {
            "perplexity": _perplexity(usage / usage.sum()),
            "revived": revived,
        }
        return TokenizerState(tokenizer, adversary, usage), metrics

    def _loss(
        self,
        parameters: Parameters,
        images: Float[Array, "B h w 3"],
        discriminator: PatchDiscriminator | None,
    ) -> tuple[Array, tuple[dict[str, Array], Array, Array, Array]]:
        tokenizer = self._tokenizer(parameters)
        features = tokenizer.encoder(images)
        ids = tokenizer.quantizer.ids(jax.lax.stop_gradient(features))
        codes = tokenizer.quantizer.codes(ids)
        # Straight through: the decoder sees codes, the encoder gets the decoder's gradient.
        fake = tokenizer.decoder(features + jax.lax.stop_gradient(codes - features))
        squared = jnp.mean((fake - images) ** 2)
        commitment = jnp.mean((features - jax.lax.stop_gradient(codes)) ** 2)
        codebook = jnp.mean((codes - jax.lax.stop_gradient(features)) ** 2)
        loss = (
            jnp.mean(jnp.abs(fake - images))
            + squared
            + codebook
            + self.losses.commitment * commitment
            + self.losses.edges * _edge_error(fake, images)
        )
        metrics = {
            # Pixels span 2 in [-1, 1].
            "psnr_db": 10 * jnp.log10(4.0 / squared),
            "commitment": commitment,
        }
        if self._perceptual is not None:
            metrics["perceptual"] = jnp.mean(self._perceptual(fake, images))
            loss += self.losses.perceptual * metrics["perceptual"]
        if discriminator is not None:
            loss += self.losses.adversarial * generator_loss(discriminator(fake))
        metrics["loss"] = loss
        vectors = features.reshape(-1, features.shape[-1])
        return loss, (metrics, jax.lax.stop_gradient(fake), vectors, ids)

    def _discriminator_loss(self, parameters: Parameters, real: Array, fake: Array) -> Array:
        discriminator = with_parameters(self._build_discriminator, parameters)
        return discriminator_loss(discriminator(real), discriminator(fake))

    def _revive(
        self,
        usage: Float[Array, " V"],
        codebook: Float[Array, "V C"],
        vectors: Float[Array, "M C"],
        ids: Int[Array, "B h w"],
        step: Int[Array, ""],
    ) -> tuple[Float[Array, " V"], Float[Array, "V C"], Int[Array, ""]]:
        """Replaces codes that fell out of use by encoder outputs that no code is near to.

        An output is drawn with probability proportional to its squared distance to its code, as
        k-means++ draws its centres: drawn evenly, most new codes would be copies of what a batch is
        full of, here plain background.

        Source: Arthur and Vassilvitskii 2007, "k-means++", section 2.2.
        """
        codes = codebook.shape[0]
        used = jnp.zeros(codes).at[ids.reshape(-1)].add(1.0 / ids.size)
        usage = self.losses.usage_decay * usage + (1 - self.losses.usage_decay) * used
        dead = usage < self.losses.revive_below / codes
        key = jax.random.fold_in(jax.random.key(self.seed), step)
        vectors = jax.lax.stop_gradient(vectors)
        errors = jnp.sum((vectors - codebook[ids.reshape(-1)]) ** 2, axis=-1)
        drawn = jax.random.categorical(key, jnp.log(errors + 1e-12), shape=(codes,))
        codebook = jnp.where(dead[:, None], vectors[drawn], codebook)
        return jnp.where(dead, 1.0 / codes, usage), codebook, dead.sum()

    def _compiled_reconstruction(
        self, parameters: Parameters, batch: UInt8[Array, "B h w 3"]
    ) -> tuple[UInt8[Array, "S h w 3"], Float[Array, "S h w 3"]]:
        tokenizer, images = self._tokenizer(parameters), batch[:SHOWN]
        return images, tokenizer.decode(tokenizer.encode(to_float(images)))

    def picture(self, state: TokenizerState, batch: UInt8[Array, "B h w 3"]) -> Image.Image:
        """Draws images above their reconstructions."""
        images, fake = map(np.asarray, self._reconstruct(state.tokenizer.params, batch))
        return contact_sheet([*images, *to_uint8(fake)], columns=len(images))

    def params(self, state: TokenizerState) -> Parameters:
        """Returns the tokenizer's parameters; the discriminator is not exported."""
        return state.tokenizer.params

    @property
    def shape(self) -> Mapping[str, Any]:
        """Returns what a resumed run must share with the run it resumes."""
        return {"config": asdict(self.config), "seed": self.seed}

    def export(
        self, params: Mapping[str, np.ndarray], folder: Path, record: Mapping[str, Any]
    ) -> None:
        """Writes the tokenizer's checkpoint, its codebook's fingerprint with it."""
        parameters = round_to_bfloat16(params)
        save_checkpoint(
            folder,
            stage="tokenizer",
            config=self.config,
            parameters=parameters,
            fingerprint={"codebook": codebook_fingerprint(parameters["quantizer.codebook"])},
            record={
                **record,
                "recipe": asdict(self.recipe),
                "losses": asdict(self.losses),
                "perceptual_network": None
                if self._perceptual is None
                else self._perceptual.fingerprint,
            },
        )


def _edge_error(fake: Float[Array, "B h w 3"], images: Float[Array, "B h w 3"]) -> Float[Array, ""]:
    """Returns the mean squared error of differences between neighbours, summed over both axes."""
    errors = fake - images
    return jnp.mean(jnp.diff(errors, axis=1) ** 2) + jnp.mean(jnp.diff(errors, axis=2) ** 2)


def _perplexity(shares: Float[Array, " V"]) -> Float[Array, ""]:
    """Returns how many codes would be in use if all were used equally."""
    return jnp.exp(-jnp.sum(shares * jnp.log(shares + 1e-10)))
