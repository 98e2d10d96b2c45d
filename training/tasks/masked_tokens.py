"""The task of both transformers: predict hidden image tokens from the others and the caption.

A random share of an image's tokens is hidden, and the caption too for one sample in ten; the loss
is the cross-entropy of the hidden tokens alone.

Source: Muse, sections 2.3, 2.4 and 2.6; Tables 4 and 6.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from PIL import Image

from services.base.config import BaseConfig
from services.base.model import BaseTransformer
from services.nn.parameters import parameters_of, with_parameters
from services.pictures.sheets import contact_sheet
from services.runtime.checkpoints.serialization import round_to_bfloat16, save_checkpoint
from services.superres.config import SuperresConfig
from services.superres.model import SuperresTransformer
from training.bf16_matmul import with_bf16_matmul
from training.optimizers import Parameters, Recipe, adafactor
from training.state import TrainState, apply_gradients, new_train_state
from training.tasks.frozen import Examples, FrozenStages, FrozenTokenizer
from training.tasks.masking import keep_text, masked_cross_entropy, random_masks

SHOWN = 8  # pictures of a report


class MaskedTokensTask:
    """Trains the base or the super-resolution transformer; its configuration says which."""

    def __init__(
        self,
        config: BaseConfig | SuperresConfig,
        recipe: Recipe,
        frozen: FrozenStages,
        examples: Callable[[int], Examples],
        *,
        seed: int = 0,
        initial: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Prepares the task.

        Args:
            config: Shape of the transformer.
            recipe: Its optimizer.
            frozen: The text encoder and tokenizers it is trained for.
            examples: Gives the examples of a step, always the same ones.
            seed: Of the initial parameters, the masks and which captions are dropped.
            initial: Parameters to start from by name; those it lacks are drawn at random.
        """
        self.config, self.recipe, self.seed = config, recipe, seed
        self._frozen, self._examples = frozen, examples
        self._initial = dict(initial or {})
        self._optimizer = adafactor(recipe)
        self._step = jax.jit(self._compiled_step, donate_argnums=0)
        self._guess = jax.jit(self._compiled_guess)

    @property
    def name(self) -> str:
        """Of the stage: "base" or "superres"."""
        return "base" if isinstance(self.config, BaseConfig) else "superres"

    def _build(self) -> BaseTransformer | SuperresTransformer:
        rngs = nnx.Rngs(self.seed)
        model = (
            BaseTransformer(self.config, rngs=rngs)
            if isinstance(self.config, BaseConfig)
            else SuperresTransformer(self.config, rngs=rngs)
        )
        return with_bf16_matmul(model) if self.recipe.factors == "bfloat16" else model

    def initial_state(self) -> TrainState:
        """Returns the parameters before the first step."""
        drawn = parameters_of(self._build())
        given = {name: jnp.asarray(value, jnp.float32) for name, value in self._initial.items()}
        return new_train_state(drawn | given, self._optimizer)

    def batch(self, step: int) -> Examples:
        """Returns the examples of a step."""
        return self._examples(step)

    def train_step(
        self, state: TrainState, batch: Examples, step: int
    ) -> tuple[TrainState, Mapping[str, Array]]:
        """Takes one step."""
        return self._step(state, batch, jnp.int32(step))

    def _compiled_step(
        self, state: TrainState, examples: Examples, step: Int[Array, ""]
    ) -> tuple[TrainState, dict[str, Array]]:
        mask_key, text_key = jax.random.split(jax.random.fold_in(jax.random.key(self.seed), step))
        targets = _targets(examples)
        hidden = random_masks(mask_key, *targets.shape)
        conditional = keep_text(text_key, targets.shape[0])

        def loss_of(parameters: Parameters) -> tuple[Array, Array]:
            logits = self._logits(parameters, examples, hidden, conditional)
            return masked_cross_entropy(logits, targets, hidden)

        (loss, accuracy), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        state = apply_gradients(state, gradients, self._optimizer)
        return state, {"loss": loss, "accuracy": accuracy, "masked": hidden.mean()}

    def _logits(
        self,
        parameters: Parameters,
        examples: Examples,
        hidden: Bool[Array, "B N"],
        conditional: Bool[Array, " B"],
    ) -> Float[Array, "B N V"]:
        model = with_parameters(self._build, parameters)
        tokens = jnp.where(hidden, self.config.vocabulary, _targets(examples))
        if isinstance(model, BaseTransformer):
            context = model.context(examples.text, examples.text_mask)
        else:
            context = model.context(examples.low, examples.text, examples.text_mask)
        return model.logits(tokens, context, conditional)

    def _compiled_guess(
        self, parameters: Parameters, examples: Examples, hidden: Bool[Array, "B N"]
    ) -> Int[Array, "B N"]:
        conditional = jnp.ones(hidden.shape[0], bool)
        logits = self._logits(parameters, examples, hidden, conditional)
        return jnp.where(hidden, jnp.argmax(logits, axis=-1), _targets(examples))

    def picture(self, state: TrainState) -> Image.Image:
        """Draws images, what is left of them with half their tokens hidden, and the best guess."""
        examples = jax.tree.map(partial(_first, SHOWN), self.batch(0))
        targets = _targets(examples)
        shown = jax.random.uniform(jax.random.key(self.seed), targets.shape) < 0.5
        guessed = self._guess(state.params, examples, ~shown)
        tokenizer = self._tokenizer()
        rows = (targets, jnp.where(shown, targets, 0), guessed)
        pictures = [picture for row in rows for picture in tokenizer.pictures(row)]
        return contact_sheet(pictures, columns=len(targets))

    def _tokenizer(self) -> FrozenTokenizer:
        return self._frozen.high or self._frozen.low

    def params(self, state: TrainState) -> Parameters:
        """Returns the transformer's parameters."""
        return state.params

    @property
    def shape(self) -> Mapping[str, Any]:
        """Returns what a resumed run must share with the run it resumes."""
        return {
            "config": asdict(self.config),
            "frozen stages": dict(self._frozen.fingerprint()),
            "seed": self.seed,
        }

    def export(
        self, params: Mapping[str, np.ndarray], folder: Path, record: Mapping[str, Any]
    ) -> None:
        """Writes the transformer's checkpoint, with the names of what it was trained for."""
        text_encoder = self._frozen.text_encoder
        captions = {"read": text_encoder.captions_read, "cut": text_encoder.captions_cut}
        save_checkpoint(
            folder,
            stage=self.name,
            config=self.config,
            parameters=round_to_bfloat16(params),
            fingerprint=self._frozen.fingerprint(),
            record={**record, "recipe": asdict(self.recipe), "captions_of_last_session": captions},
        )


def _first(count: int, array: Array) -> Array:
    return array[:count]


def _targets(examples: Examples) -> Int[Array, "B N"]:
    return examples.low if examples.high is None else examples.high
