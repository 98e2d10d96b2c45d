"""The text encoder's task: T5's span corruption on captions; then it is frozen.

Source: Raffel et al. 2020, section 3.1.4.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int
from PIL import Image

from services.nn.parameters import parameters_of, with_parameters
from services.runtime.checkpoints.serialization import (
    parameters_fingerprint,
    round_to_bfloat16,
    save_checkpoint,
)
from services.text_encoder.config import TextEncoderConfig
from services.text_encoder.vocabulary import FILE_NAME, PADDING, Vocabulary, train_vocabulary
from training.optimizers import Recipe, adam
from training.state import Learner, Parameters, learn, new_learner, served
from training.tasks.span_corruption import MEAN_SPAN, NOISE_DENSITY, SpanBatch, span_batch
from training.tasks.span_decoder import SpanModel

Captions = Callable[[int], Iterator[str]]  # seed to an endless iterator of texts

# A few minutes on one CPU core. At a rate of 2e-3 the loss falls as far, but embeddings lose what
# a fresh encoder has: a linear probe reads which of four places a noun names in 58% of pairs from
# this rate, in 42% from that one.
DEMO_RECIPE = Recipe(
    steps=1200,
    batch_size=32,
    learning_rate=3e-4,
    warm_up_steps=50,
    first_decay=0.9,
    second_decay=0.99,
    weight_decay=1e-4,
    average_every=50,
)
TINY_RECIPE = Recipe(
    steps=20,
    batch_size=8,
    learning_rate=2e-3,
    warm_up_steps=2,
    first_decay=0.9,
    second_decay=0.99,
    weight_decay=1e-4,
    average_every=5,
)
RECIPES = {"demo": DEMO_RECIPE, "tiny": TINY_RECIPE}


def vocabulary_for(folder: Path, captions: Captions, size: int, *, seed: int = 0) -> Vocabulary:
    """Returns the run's vocabulary: the one in its folder, or one trained now and kept there.

    Args:
        folder: Of the run; spiece.model lies in it.
        captions: What the vocabulary is trained on.
        size: Rows of the encoder's embedding.
        seed: Of the captions.
    """
    file = folder / FILE_NAME
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_bytes(train_vocabulary(captions(seed), size).model)
        part.replace(file)
    return Vocabulary.from_file(file)


class TextEncoderTask:
    """Trains one text encoder; see `span_corruption` for what it is asked."""

    def __init__(
        self,
        config: TextEncoderConfig,
        recipe: Recipe,
        captions: Captions,
        vocabulary: Vocabulary,
        *,
        decoder_layers: int = 1,
        seed: int = 0,
    ) -> None:
        """Prepares the task.

        Args:
            config: Shape of the encoder.
            recipe: Its optimizer.
            captions: Gives an endless iterator of texts for a seed, always the same one.
            vocabulary: Makes ids of texts; exported with the encoder.
            decoder_layers: Of the decoder that only training has.
            seed: Of the initial parameters, the captions and the spans.

        Raises:
            ValueError: the vocabulary has more ids than the embedding has rows.
        """
        if vocabulary.size > config.vocabulary_size:
            raise ValueError(
                f"the vocabulary has {vocabulary.size} ids: "
                f"the embedding has only {config.vocabulary_size} rows"
            )
        self.config, self.recipe, self.vocabulary, self.seed = config, recipe, vocabulary, seed
        self.decoder_layers = decoder_layers
        self._captions = captions
        self._optimizer = adam(recipe)
        self._step = jax.jit(self._compiled_step, donate_argnums=0)

    @property
    def name(self) -> str:
        """Of the progress bar."""
        return "text encoder"

    def _build(self) -> SpanModel:
        return SpanModel(self.config, decoder_layers=self.decoder_layers, rngs=nnx.Rngs(self.seed))

    def initial_state(self) -> Learner:
        """Returns fresh parameters."""
        return new_learner(parameters_of(self._build()), self._optimizer)

    def batch(self, step: int) -> SpanBatch:
        """Returns the corrupted captions of a step."""
        random = np.random.default_rng((self.seed, step))
        texts = islice(self._captions(int(random.integers(2**31))), self.recipe.batch_size)
        return span_batch(list(texts), self.vocabulary, self.config.maximum_length, random)

    def train_step(
        self, state: Learner, batch: SpanBatch, step: int
    ) -> tuple[Learner, Mapping[str, Array]]:
        """Takes one step."""
        return self._step(state, batch, jnp.int32(step))

    def _compiled_step(
        self, state: Learner, batch: SpanBatch, step: Int[Array, ""]
    ) -> tuple[Learner, dict[str, Array]]:
        (_, metrics), gradients = jax.value_and_grad(
            partial(self._loss, batch=batch), has_aux=True
        )(state.parameters)
        return learn(state, gradients, self._optimizer, self.recipe, step), metrics

    def _loss(
        self, parameters: Parameters, batch: SpanBatch
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        model = with_parameters(self._build, parameters)
        logits = model(jnp.asarray(batch.inputs), jnp.asarray(batch.targets))
        likely = jax.nn.log_softmax(logits, axis=-1)
        chosen = jnp.take_along_axis(likely, batch.targets[..., None], axis=-1)[..., 0]
        counted = batch.targets != PADDING
        loss = -jnp.sum(chosen * counted) / counted.sum()
        right = (jnp.argmax(logits, axis=-1) == batch.targets) & counted
        return loss, {"loss": loss, "accuracy": right.sum() / counted.sum()}

    def picture(self, state: Learner) -> Image.Image | None:
        """Draws nothing: there is nothing to see in an embedding."""
        return None

    def export(self, state: Learner, folder: Path, record: Mapping[str, Any]) -> None:
        """Writes the encoder without its decoder, the vocabulary beside it."""
        parameters = round_to_bfloat16(
            {
                name.removeprefix("encoder."): np.asarray(value)
                for name, value in served(state).items()
                if name.startswith("encoder.")
            }
        )
        folder.mkdir(parents=True, exist_ok=True)
        vocabulary = folder / FILE_NAME
        vocabulary.write_bytes(self.vocabulary.model)
        save_checkpoint(
            folder,
            stage="text_encoder",
            config=self.config,
            parameters=parameters,
            fingerprint={
                "encoder": parameters_fingerprint("t5", parameters, self.vocabulary.model)
            },
            record={
                **record,
                "recipe": asdict(self.recipe),
                "objective": {"noise_density": NOISE_DENSITY, "mean_span": MEAN_SPAN},
                "decoder_layers": self.decoder_layers,
            },
            files=(vocabulary,),
        )
