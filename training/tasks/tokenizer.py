"""The VQGAN task: reconstruct images through the codebook; or with a new decoder alone.

A decoder is fine-tuned over the encoder and the codebook of a trained tokenizer, which stay bit
for bit: tokens mean the same, and transformers trained on them go on working (Muse, section 2.5).

Source: Esser et al. 2021, section 3.1; Muse, sections 2.2 and 2.5, Table 5.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8
from PIL import Image

from services.nn.parameters import parameters_of, with_parameters
from services.pictures.sheets import contact_sheet
from services.runtime.checkpoints.serialization import (
    codebook_fingerprint,
    parameters_fingerprint,
    round_to_bfloat16,
    save_checkpoint,
)
from services.tokenizer.config import TokenizerConfig
from services.tokenizer.model import CODEBOOK, Convolution, Tokenizer
from training.gradients import accumulated
from training.mesh import Execution, one_device
from training.optimizers import Parameters, Recipe, adam, optimizer_metrics
from training.pictures import to_float, to_uint8
from training.state import TrainState, apply_gradients, new_train_state
from training.tasks.codebook import (
    CodebookUse,
    count_use,
    new_codebook_use,
    revive_codes,
    use_metrics,
)
from training.tasks.discriminator import Adversary, DiscriminatorState
from training.tasks.reconstruction import Reconstruction, loss_gradients, reconstruct
from training.tasks.tokenizer_losses import PerceptualDistance, TokenizerLosses

SHOWN = 8  # images of a report


class TokenizerState(NamedTuple):
    """What a run carries from step to step.

    Attributes:
        tokenizer: What is trained of the tokenizer.
        frozen: What is not: encoder and codebook if a decoder is fine-tuned, else nothing.
        discriminator: Its adversary.
        use: How often each code was used.
    """

    tokenizer: TrainState
    frozen: Parameters
    discriminator: DiscriminatorState
    use: CodebookUse


class TokenizerTask:
    """Trains one tokenizer, or its decoder alone."""

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
        frozen: Mapping[str, np.ndarray] | None = None,
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
            frozen: Encoder and codebook of a trained tokenizer, if only a decoder is trained.
            execution: Devices, parts of a batch, remat; by default one device.

        Raises:
            ValueError: the mesh has an axis that divides no tokenizer.
        """
        self.config, self.recipe, self.losses = config, recipe, losses
        self.resolution, self.seed = resolution, seed
        self._images, self._perceptual = images, perceptual
        self._frozen = frozen or {}
        self._frozen_fingerprint = (
            parameters_fingerprint("tokenizer", self._frozen) if self._frozen else None
        )
        self.given = {
            name: np.asarray(value, np.float32)
            for name, value in {**(initial or {}), **self._frozen}.items()
        }
        self._execution = execution or one_device()
        if self._execution.mesh.shape["tensor"] > 1:
            raise ValueError(
                "mesh: a tokenizer is divided along data and fsdp, got "
                f"tensor={self._execution.mesh.shape['tensor']}: its convolutions have no heads "
                "to divide"
            )
        self._optimizer = adam(recipe)
        self._adversary = Adversary(losses, self._optimizer, seed=seed + 1)
        self._reconstruct = jax.jit(
            self._compiled_reconstruction, out_shardings=self._execution.replicated
        )

    @property
    def name(self) -> str:
        """Of the progress bar."""
        return f"tokenizer {self.resolution}"

    def _build(self) -> Tokenizer:
        tokenizer = Tokenizer(self.config, rngs=nnx.Rngs(self.seed))
        if self._execution.remat:
            tokenizer.encoder.wrap = tokenizer.decoder.wrap = jax.checkpoint
        on_cpu = self._execution.mesh.devices.flat[0].platform == "cpu"
        for _, module in nnx.iter_graph(tokenizer):
            if isinstance(module, Convolution):
                # Step and gradient take a third of the time, and a long run does not mind the
                # longer compilation.
                module.in_products = on_cpu
        return tokenizer

    def _tokenizer(self, parameters: Parameters) -> Tokenizer:
        return with_parameters(self._build, parameters)

    def initial_state(self, given: Mapping[str, Array]) -> TokenizerState:
        """Returns fresh parameters, or the given ones, and a codebook whose use is not counted."""
        parameters = parameters_of(self._build()) | dict(given)
        frozen = {name: parameters.pop(name) for name in self._frozen}
        return TokenizerState(
            tokenizer=new_train_state(parameters, self._optimizer),
            frozen=frozen,
            discriminator=self._adversary.initial_state(),
            use=new_codebook_use(self.config.codebook_size),
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
        images, discriminator = to_float(batch), state.discriminator

        parts = self._execution.accumulate
        score = partial(self._adversary.scores, discriminator.network.params)

        def of_part(images: Float[Array, "b h w 3"]) -> tuple[Any, tuple[Array, Array, Array]]:
            def forward(params: Parameters) -> Reconstruction:
                tokenizer = self._tokenizer(state.frozen | params)
                return reconstruct(tokenizer, images, self.losses, decoder_alone=bool(state.frozen))

            gradients, made, metrics = loss_gradients(
                forward,
                state.tokenizer.params,
                images,
                self.losses,
                perceptual=self._perceptual,
                score=score if adversarial else None,
            )
            # Every loss is a mean over examples, and so is every number that is reported.
            means = jax.tree.map(lambda mean: mean / parts, (gradients, metrics))
            return means, (made.fake, made.features, made.ids)

        (gradients, metrics), (fake, features, ids) = accumulated(of_part, images, parts)
        tokenizer = apply_gradients(state.tokenizer, gradients, self._optimizer)
        decay = self.losses.usage_decay
        use = count_use(state.use, ids, step, decay=decay)
        metrics |= use_metrics(use, step, decay=decay)
        metrics |= optimizer_metrics(self.recipe, gradients, step)
        if not state.frozen:
            use, codebook, metrics["revived"] = revive_codes(
                use,
                tokenizer.params[CODEBOOK],
                features.reshape(-1, features.shape[-1]),
                ids.reshape(-1),
                jax.random.fold_in(jax.random.key(self.seed), step),
                below=self.losses.revive_below,
            )
            tokenizer = tokenizer._replace(params=tokenizer.params | {CODEBOOK: codebook})
        if adversarial:
            discriminator, reported = self._adversary.train_step(discriminator, images, fake)
            metrics |= reported
        return TokenizerState(tokenizer, state.frozen, discriminator, use), metrics

    def _compiled_reconstruction(
        self, parameters: Parameters, batch: UInt8[Array, "B h w 3"]
    ) -> tuple[UInt8[Array, "S h w 3"], Float[Array, "S h w 3"]]:
        tokenizer, images = self._tokenizer(parameters), batch[:SHOWN]
        return images, tokenizer.decode(tokenizer.encode(to_float(images)))

    def picture(self, state: TokenizerState, batch: UInt8[Array, "B h w 3"]) -> Image.Image:
        """Draws images above their reconstructions."""
        images, fake = map(np.asarray, self._reconstruct(self.params(state), batch))
        return contact_sheet([*images, *to_uint8(fake)], columns=len(images))

    def params(self, state: TokenizerState) -> Parameters:
        """Returns the tokenizer's parameters; the discriminator is not exported."""
        return state.tokenizer.params | state.frozen

    @property
    def shape(self) -> Mapping[str, Any]:
        """Returns what a resumed run must share with the run it resumes."""
        return {
            "config": asdict(self.config),
            "seed": self.seed,
            "discriminator_width": self.losses.discriminator_width,
            "frozen": self._frozen_fingerprint,
        }

    def export(
        self, params: Mapping[str, np.ndarray], folder: Path, record: Mapping[str, Any]
    ) -> None:
        """Writes the tokenizer's checkpoint, its codebook's fingerprint with it.

        What is frozen is written as it was read.
        """
        parameters = {**round_to_bfloat16(params), **self._frozen}
        save_checkpoint(
            folder,
            stage="tokenizer",
            config=self.config,
            parameters=parameters,
            fingerprint={"codebook": codebook_fingerprint(parameters[CODEBOOK])},
            record={
                **record,
                "recipe": asdict(self.recipe),
                "losses": asdict(self.losses),
                "frozen": self._frozen_fingerprint,
                "perceptual_network": None
                if self._perceptual is None
                else self._perceptual.fingerprint,
            },
        )
