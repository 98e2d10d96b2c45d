"""The text encoder's task: T5's span corruption on captions, and labels of their nouns.

Where the data labels the nouns of its captions, a linear head a label reads from each noun's
embedding which object it is, where it stands, how many there are, in which style and on which
background: what the transformers must find there, and what span corruption alone teaches slowly.
After training the encoder is frozen and the heads are dropped.

Source: Raffel et al. 2020, section 3.1.4.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from PIL import Image

from services.nn.parameters import parameters_of, with_parameters
from services.runtime.checkpoints.serialization import (
    parameters_fingerprint,
    round_to_bfloat16,
    save_checkpoint,
)
from services.text_encoder.config import TextEncoderConfig
from services.text_encoder.known_words import KNOWN_WORDS_FILE, KnownWords
from services.text_encoder.vocabulary import FILE_NAME, PADDING, Vocabulary, train_vocabulary
from training.data.captions import Caption
from training.optimizers import Parameters, Recipe, adam, optimizer_metrics
from training.state import TrainState, apply_gradients, new_train_state
from training.tasks.frozen import padded_length
from training.tasks.span_corruption import MEAN_SPAN, NOISE_DENSITY, SpanBatch, span_batch
from training.tasks.span_decoder import SpanModel
from training.whole_files import whole_file

Captions = Callable[[int], Iterator[Caption]]  # seed to an endless iterator of captions


def vocabulary_for(
    folder: Path,
    captions: Captions,
    size: int,
    *,
    seed: int = 0,
    given: Vocabulary | None = None,
) -> Vocabulary:
    """Returns the run's vocabulary: the one in its folder, or a new one, which is kept there.

    Args:
        folder: Of the run; spiece.model lies in it.
        captions: What the vocabulary is trained on.
        size: Rows of the encoder's embedding.
        seed: Of the captions.
        given: The new one; None trains one on the captions.
    """
    file = folder / FILE_NAME
    if not file.is_file():
        texts = (caption.text for caption in captions(seed))
        model = (given or train_vocabulary(texts, size)).model
        with whole_file(file) as part:
            part.write_bytes(model)
    return Vocabulary.from_file(file)


class TextBatch(NamedTuple):
    """Captions of a step, corrupted and whole.

    Attributes:
        spans: The corrupted captions and what was cut out of them.
        ids: The whole captions.
        labels: Classes of the token that ends a noun, -1 for every other token.
    """

    spans: SpanBatch
    ids: Int[np.ndarray, "B T"]
    labels: Int[np.ndarray, "B T labels"]


class TextEncoderTask:
    """Trains one text encoder; the module describes its two objectives."""

    def __init__(
        self,
        config: TextEncoderConfig,
        recipe: Recipe,
        captions: Captions,
        vocabulary: Vocabulary,
        *,
        label_classes: Mapping[str, int],
        known_words: KnownWords | None = None,
        decoder_layers: int = 1,
        seed: int = 0,
        initial: Mapping[str, np.ndarray] | None = None,
        rows: slice = slice(None),
    ) -> None:
        """Prepares the task.

        Args:
            config: Shape of the encoder.
            recipe: Its optimizer.
            captions: Gives an endless iterator of texts for a seed, always the same one.
            vocabulary: Makes ids of texts; exported with the encoder.
            label_classes: Classes of each label of the captions' nouns; empty for no labels.
            known_words: Words of the captions, exported with the encoder; None exports no list.
            decoder_layers: Of the decoder that only training has.
            seed: Of the initial parameters, the captions and the spans.
            initial: Parameters to start from by name; those it lacks are drawn at random.
            rows: Captions of each step that this process gives.

        Raises:
            ValueError: the vocabulary has more ids than the embedding has rows.
        """
        if vocabulary.size > config.vocabulary_size:
            raise ValueError(
                f"the vocabulary has {vocabulary.size} ids: "
                f"the embedding has only {config.vocabulary_size} rows"
            )
        self.config, self.recipe, self.vocabulary, self.seed = config, recipe, vocabulary, seed
        self.decoder_layers, self.label_classes = decoder_layers, dict(label_classes)
        self._captions, self._known_words, self._rows = captions, known_words, rows
        self._optimizer = adam(recipe)
        self.given = {
            name: np.asarray(value, np.float32) for name, value in (initial or {}).items()
        }

    @property
    def name(self) -> str:
        """Of the progress bar."""
        return "text encoder"

    def _build(self) -> SpanModel:
        return SpanModel(
            self.config,
            decoder_layers=self.decoder_layers,
            label_classes=self.label_classes,
            rngs=nnx.Rngs(self.seed),
        )

    def initial_state(self, given: Mapping[str, Array]) -> TrainState:
        """Returns the parameters before the first step."""
        return new_train_state(parameters_of(self._build()) | dict(given), self._optimizer)

    def batch(self, step: int) -> TextBatch:
        """Returns this process's captions of a step, corrupted and whole."""
        random = np.random.default_rng((self.seed, step))
        captions = list(islice(self._captions(int(random.integers(2**31))), self.recipe.batch_size))
        texts = [caption.text for caption in captions]
        spans = span_batch(texts, self.vocabulary, self.config.maximum_length, random)
        ids, labels = noun_labels(
            captions, self.vocabulary, self.config.maximum_length, len(self.label_classes)
        )
        whole = TextBatch(spans, ids, labels)
        return jax.tree.map(lambda array: array[self._rows], whole)

    def phase(self, step: int) -> str:
        """Returns the only phase there is."""
        return "training"

    def train_step(
        self, state: TrainState, batch: TextBatch, step: Int[Array, ""], phase: str
    ) -> tuple[TrainState, dict[str, Array]]:
        """Takes one step."""
        (_, metrics), gradients = jax.value_and_grad(
            partial(self._loss, batch=batch), has_aux=True
        )(state.params)
        metrics |= optimizer_metrics(self.recipe, gradients, step)
        return apply_gradients(state, gradients, self._optimizer), metrics

    def _loss(
        self, parameters: Parameters, batch: TextBatch
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        model = with_parameters(self._build, parameters)
        targets = jnp.asarray(batch.spans.targets)
        logits = model(jnp.asarray(batch.spans.inputs), targets)
        span_loss, accuracy = _cross_entropy(logits, targets, targets != PADDING)
        metrics = {"span_loss": span_loss, "span_accuracy": accuracy}
        loss = span_loss
        label_logits = model.labels(jnp.asarray(batch.ids))
        for at, name in enumerate(self.label_classes):
            labels = jnp.asarray(batch.labels[..., at])
            label_loss, accuracy = _cross_entropy(label_logits[name], labels, labels >= 0)
            metrics[f"{name}_accuracy"] = accuracy
            loss += label_loss
        return loss, {"loss": loss, **metrics}

    def picture(self, state: TrainState, batch: TextBatch) -> Image.Image | None:
        """Draws nothing: there is nothing to see in an embedding."""
        return None

    def params(self, state: TrainState) -> Parameters:
        """Returns the parameters of encoder, decoder and heads."""
        return state.params

    @property
    def shape(self) -> Mapping[str, Any]:
        """Returns what a resumed run must share with the run it resumes."""
        return {"config": asdict(self.config), "labels": self.label_classes, "seed": self.seed}

    def export(
        self, params: Mapping[str, np.ndarray], folder: Path, record: Mapping[str, Any]
    ) -> None:
        """Writes the encoder without its decoder, vocabulary and known words beside it."""
        parameters = round_to_bfloat16(
            {
                name.removeprefix("encoder."): np.asarray(value)
                for name, value in params.items()
                if name.startswith("encoder.")
            }
        )
        folder.mkdir(parents=True, exist_ok=True)
        vocabulary = folder / FILE_NAME
        vocabulary.write_bytes(self.vocabulary.model)
        if self._known_words is not None:
            self._known_words.save(folder / KNOWN_WORDS_FILE)
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
                "labels": self.label_classes,
            },
            files=(vocabulary,),
        )


def noun_labels(
    captions: Sequence[Caption], vocabulary: Vocabulary, maximum_length: int, labels: int
) -> tuple[Int[np.ndarray, "B T"], Int[np.ndarray, "B T labels"]]:
    """Encodes whole captions and labels the token that ends each of their nouns.

    SentencePiece never joins two words nor a word and a comma in one piece, so the pieces of the
    words before a noun say where the noun ends.

    Args:
        captions: The captions of a step.
        vocabulary: Makes ids of them.
        maximum_length: Positions of a row; a longer caption is cut short.
        labels: Labels a noun has.

    Returns:
        The ids, padded, and the classes, -1 wherever no noun ends.
    """
    longest = max(len(vocabulary.encode(caption.text)) for caption in captions)
    length = padded_length(min(longest, maximum_length), maximum_length)
    ids = np.full((len(captions), length), PADDING, np.int32)
    classes = np.full((len(captions), length, labels), -1, np.int32)
    for row, caption in enumerate(captions):
        encoded = vocabulary.encode(caption.text)[:length]
        ids[row, : len(encoded)] = encoded
        words = caption.text.split(" ")
        for noun in caption.nouns:
            upto = " ".join(words[: noun.word + 1]).rstrip(",")
            last = len(vocabulary.encode(upto)) - 2  # the end-of-sequence id comes after it
            if last < length:
                classes[row, last] = noun.labels
    return ids, classes


def _cross_entropy(
    logits: Float[Array, "B T V"], targets: Int[Array, "B T"], counted: Bool[Array, "B T"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns the mean loss in nats and the accuracy over the positions that count."""
    likely = jax.nn.log_softmax(logits, axis=-1)
    chosen = jnp.take_along_axis(likely, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    count = jnp.maximum(counted.sum(), 1)
    right = (jnp.argmax(logits, axis=-1) == targets) & counted
    return -jnp.sum(chosen * counted) / count, right.sum() / count
