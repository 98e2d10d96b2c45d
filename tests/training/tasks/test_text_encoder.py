"""Tests for the text encoder's task, from captions to a checkpoint that loads."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from services.presets import preset
from services.text_encoder.known_words import known_words
from services.text_encoder.loading import load_text_encoder
from services.text_encoder.vocabulary import Vocabulary
from training.data.captions import Caption, Noun
from training.mesh import one_device
from training.recipes import RECIPES
from training.sharded_step import ShardedStep
from training.tasks.span_decoder import SpanModel
from training.tasks.text_encoder import TextEncoderTask, noun_labels, vocabulary_for

TINY = preset("tiny").text_encoder
TINY_RECIPE = RECIPES["tiny"].text_encoder
assert TINY_RECIPE is not None
THINGS = ("fox", "key", "sun", "car")


CLASSES = {"object": 4, "place": 2}


def captions(seed: int) -> Iterator[Caption]:
    """Texts in which the last word follows from the first, and labels of both nouns."""
    for index in count(seed):
        at = index % len(THINGS)
        nouns = (Noun(word=1, labels=(at, 0)), Noun(word=4, labels=(at, 1)))
        yield Caption(text=f"a {THINGS[at]} above another {THINGS[at]}", nouns=nouns)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return vocabulary_for(tmp_path_factory.mktemp("run"), captions, TINY.vocabulary_size)


@pytest.fixture(scope="module")
def task(vocabulary: Vocabulary) -> TextEncoderTask:
    known = known_words((caption.text for caption in captions(0)), {}, examples=len(THINGS))
    return TextEncoderTask(
        TINY, TINY_RECIPE, captions, vocabulary, label_classes=CLASSES, known_words=known
    )


def test_a_run_keeps_the_vocabulary_it_began_with(tmp_path: Path) -> None:
    first = vocabulary_for(tmp_path, captions, TINY.vocabulary_size)
    again = vocabulary_for(tmp_path, lambda seed: iter(()), TINY.vocabulary_size)

    assert again.model == first.model


def test_the_batch_of_a_step_is_always_the_same(task: TextEncoderTask) -> None:
    first, again, other = task.batch(3), task.batch(3), task.batch(4)

    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first.spans.inputs, other.spans.inputs)


def test_the_token_that_ends_a_noun_has_its_labels(vocabulary: Vocabulary) -> None:
    caption = Caption(
        text="a car, a sun above a fox",
        nouns=(Noun(word=1, labels=(3, 0)), Noun(word=6, labels=(0, 1))),
    )
    ids, labels = noun_labels([caption], vocabulary, TINY.maximum_length, 2)

    (places,) = np.nonzero(labels[0, :, 0] >= 0)
    assert labels[0, places].tolist() == [[3, 0], [0, 1]]
    assert vocabulary.decode(ids[0, : places[0] + 1]) == "a car"
    assert vocabulary.decode(ids[0, : places[1] + 1]) == caption.text


def test_captions_without_labels_train_by_span_corruption_alone(vocabulary: Vocabulary) -> None:
    task = TextEncoderTask(
        TINY,
        TINY_RECIPE,
        lambda seed: (Caption(text=caption.text) for caption in captions(seed)),
        vocabulary,
        label_classes={},
    )
    step = ShardedStep(task, one_device())
    _, metrics = step(task.initial_state(task.given), task.batch(0), 0, task.phase(0))

    assert float(metrics["loss"]) == float(metrics["span_loss"])


def test_the_loss_falls_and_the_exported_encoder_loads(
    task: TextEncoderTask, tmp_path: Path
) -> None:
    state, losses = task.initial_state(task.given), []
    take_step = ShardedStep(task, one_device())
    for step in range(TINY_RECIPE.steps):
        state, metrics = take_step(state, task.batch(step), step, task.phase(step))
        losses.append(float(metrics["loss"]))
    task.export(task.params(state), tmp_path, {"steps": TINY_RECIPE.steps})

    loaded = load_text_encoder(tmp_path)
    ids, mask, _ = loaded.vocabulary.encode_batch(["a fox above a key"], 16)
    embeddings = loaded.encoder(jnp.asarray(ids), jnp.asarray(mask))

    assert losses[-1] < losses[0] - 0.5
    assert float(metrics["object_accuracy"]) > 0.25
    assert loaded.fingerprint.startswith("t5:")
    assert loaded.known_words is not None
    assert loaded.known_words.words == {"a", "above", "another", *THINGS}
    assert len(loaded.fingerprint) == len("t5:") + 16
    assert embeddings.shape == (1, 16, TINY.hidden)
    assert np.all(np.isfinite(embeddings))


def test_the_decoder_sees_no_target_before_it_has_said_it(task: TextEncoderTask) -> None:
    model = SpanModel(TINY, decoder_layers=1, label_classes={}, rngs=nnx.Rngs(0))
    batch = jax.tree.map(jnp.asarray, task.batch(0).spans)
    changed = batch.targets.at[:, 3].set(7)

    before, after = model(batch.inputs, batch.targets), model(batch.inputs, changed)

    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert np.any(before[:, 4] != after[:, 4])


def test_a_vocabulary_larger_than_the_embedding_is_refused(vocabulary: Vocabulary) -> None:
    small = replace(TINY, vocabulary_size=vocabulary.size - 1)
    with pytest.raises(ValueError, match="the embedding has only"):
        TextEncoderTask(small, TINY_RECIPE, captions, vocabulary, label_classes={})
