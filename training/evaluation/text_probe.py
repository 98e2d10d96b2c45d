"""Linear probe of a frozen text encoder: what the embedding of a noun says of its object.

The base transformer reads from the embeddings of a prompt which objects to show, where, how many,
in which style and on which background. A linear softmax regression a label, from the embedding of
the token that ends each noun, measures how much of that a linear projection can find there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from services.text_encoder.vocabulary import FILE_NAME, Vocabulary
from training.data.captions import LABELS, Caption, caption_of, label_classes, training_captions
from training.data.scenes import draw_scene, scene_is_held_out
from training.evaluation.shares import Share, share_of
from training.evaluation.testbed import Testbed
from training.tasks.frozen import FrozenTextEncoder
from training.tasks.text_encoder import noun_labels

_BATCH = 64
_LEARNING_RATE = 0.03  # of Adam at first; it falls to 0 as a cosine
_WEIGHT_DECAY = 1e-5  # L2 penalty on the weights of standardised embeddings

Weights = tuple[Float[Array, "D C"], Float[Array, " C"]]


@dataclass(frozen=True)
class LabelledNouns:
    """Embeddings of the tokens that end nouns, and the nouns' labels.

    Attributes:
        embeddings: One noun a row.
        labels: A class for each of LABELS.
    """

    embeddings: Float[np.ndarray, "M D"]
    labels: Int[np.ndarray, "M labels"]


def held_out_captions(testbed: Testbed, seed: int) -> Iterator[Caption]:
    """Yields captions of scenes with held-out pairs or counts, without end."""
    index = 0
    while True:
        random = np.random.default_rng([seed, index])
        scene = draw_scene(testbed.vocabulary, testbed.board, random)
        if scene_is_held_out(scene, testbed.vocabulary):
            yield caption_of(scene, testbed.vocabulary, random)
        index += 1


def embedded_nouns(
    encoder: FrozenTextEncoder, vocabulary: Vocabulary, captions: Sequence[Caption]
) -> LabelledNouns:
    """Embeds captions and keeps the token that ends each noun."""
    embeddings, labels = [], []
    for start in range(0, len(captions), _BATCH):
        batch = captions[start : start + _BATCH]
        values, _ = encoder.embeddings([caption.text for caption in batch])
        _, classes = noun_labels(batch, vocabulary, encoder.maximum_length, len(LABELS))
        ends = classes[..., 0] >= 0
        embeddings.append(np.asarray(values)[ends])
        labels.append(classes[ends])
    return LabelledNouns(np.concatenate(embeddings), np.concatenate(labels))


def probe(
    training: LabelledNouns, test: LabelledNouns, classes: Mapping[str, int], *, steps: int
) -> dict[str, Share]:
    """Fits a softmax regression a label and returns how often it is right.

    Args:
        training: What it is fitted to.
        test: What it is measured on.
        classes: How many classes each of LABELS has.
        steps: Of Adam, each on all training nouns.

    Returns:
        The share of test nouns that is right by label, then "all" for all labels of a noun.
    """
    mean, deviation = training.embeddings.mean(axis=0), training.embeddings.std(axis=0) + 1e-6
    inputs = jnp.asarray((training.embeddings - mean) / deviation)
    targets = jnp.asarray(training.labels)
    sizes = tuple(classes[name] for name in LABELS)
    weights = _fitted(inputs, targets, sizes, steps)
    logits = jnp.asarray((test.embeddings - mean) / deviation) @ weights[0] + weights[1]
    read = np.stack([np.argmax(part, axis=-1) for part in _split(logits, sizes)], axis=-1)
    right = read == test.labels
    return {name: share_of(right[:, at].tolist()) for at, name in enumerate(LABELS)} | {
        "all": share_of(right.all(axis=-1).tolist())
    }


def _split(logits: Float[Array, "M C"], sizes: Sequence[int]) -> list[Float[Array, "M _"]]:
    return jnp.split(logits, np.cumsum(sizes)[:-1].tolist(), axis=-1)


def _fitted(
    inputs: Float[Array, "M D"], targets: Int[Array, "M labels"], sizes: Sequence[int], steps: int
) -> Weights:
    optimizer = optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, steps))

    def loss_of(weights: Weights) -> Float[Array, ""]:
        logits = _split(inputs @ weights[0] + weights[1], sizes)
        losses = [
            optax.softmax_cross_entropy_with_integer_labels(part, targets[:, at]).mean()
            for at, part in enumerate(logits)
        ]
        return sum(losses, start=_WEIGHT_DECAY * jnp.square(weights[0]).sum())

    def step(
        carry: tuple[Weights, optax.OptState], _: None
    ) -> tuple[tuple[Weights, optax.OptState], None]:
        weights, state = carry
        updates, state = optimizer.update(jax.grad(loss_of)(weights), state)
        return (optax.apply_updates(weights, updates), state), None

    start: Weights = (
        jnp.zeros((inputs.shape[1], sum(sizes)), jnp.float32),
        jnp.zeros(sum(sizes), jnp.float32),
    )
    fit = jax.jit(lambda carry: jax.lax.scan(step, carry, None, length=steps)[0])
    weights: Weights = fit((start, optimizer.init(start)))[0]
    return weights


def probe_text_encoder(
    folder: Path, testbed: Testbed, *, training: int, test: int, steps: int, seed: int
) -> dict[str, Share]:
    """Fits the probe to captions of training scenes and measures it on held-out captions.

    Args:
        folder: Checkpoint of the text encoder.
        testbed: What captions are about.
        training: Captions that the probe is fitted to.
        test: Captions that it is measured on.
        steps: Of Adam.
        seed: Of the captions.

    Raises:
        CheckpointError: there is no text encoder, or it is of another format.
        ValueError: there are too few captions or steps.
    """
    if min(training, test, steps) < 1:
        raise ValueError(
            f"expected at least 1 caption of each sort and 1 step, "
            f"got {training}, {test} and {steps}"
        )
    encoder = FrozenTextEncoder(folder)
    vocabulary = Vocabulary.from_file(folder / FILE_NAME)
    known = training_captions(testbed.vocabulary, testbed.board, seed)
    unknown = held_out_captions(testbed, seed + 1)
    return probe(
        embedded_nouns(encoder, vocabulary, list(islice(known, training))),
        embedded_nouns(encoder, vocabulary, list(islice(unknown, test))),
        label_classes(testbed.vocabulary),
        steps=steps,
    )
