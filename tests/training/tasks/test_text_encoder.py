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
from services.text_encoder.loading import load_text_encoder
from services.text_encoder.vocabulary import Vocabulary
from training.tasks.span_decoder import SpanModel
from training.tasks.text_encoder import TINY_RECIPE, TextEncoderTask, vocabulary_for

TINY = preset("tiny").text_encoder
THINGS = ("fox", "key", "sun", "car")


def captions(seed: int) -> Iterator[str]:
    """Texts in which the last word follows from the first."""
    for index in count(seed):
        thing = THINGS[index % len(THINGS)]
        yield f"a {thing} above another {thing}"


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return vocabulary_for(tmp_path_factory.mktemp("run"), captions, TINY.vocabulary_size)


@pytest.fixture(scope="module")
def task(vocabulary: Vocabulary) -> TextEncoderTask:
    return TextEncoderTask(TINY, TINY_RECIPE, captions, vocabulary)


def test_a_run_keeps_the_vocabulary_it_began_with(tmp_path: Path) -> None:
    first = vocabulary_for(tmp_path, captions, TINY.vocabulary_size)
    again = vocabulary_for(tmp_path, lambda seed: iter(()), TINY.vocabulary_size)

    assert again.model == first.model


def test_the_batch_of_a_step_is_always_the_same(task: TextEncoderTask) -> None:
    first, again, other = task.batch(3), task.batch(3), task.batch(4)

    assert np.array_equal(first.inputs, again.inputs)
    assert np.array_equal(first.targets, again.targets)
    assert not np.array_equal(first.inputs, other.inputs)


def test_the_loss_falls_and_the_exported_encoder_loads(
    task: TextEncoderTask, tmp_path: Path
) -> None:
    state, losses = task.initial_state(), []
    for step in range(TINY_RECIPE.steps):
        state, metrics = task.train_step(state, task.batch(step), step)
        losses.append(float(metrics["loss"]))
    task.export(state, tmp_path, {"steps": TINY_RECIPE.steps})

    loaded = load_text_encoder(tmp_path)
    ids, mask = loaded.vocabulary.encode_batch(["a fox above a key"], 16)
    embeddings = loaded.encoder(jnp.asarray(ids), jnp.asarray(mask))

    assert losses[-1] < losses[0] - 0.5
    assert loaded.fingerprint.startswith("t5:")
    assert len(loaded.fingerprint) == len("t5:") + 16
    assert embeddings.shape == (1, 16, TINY.hidden)
    assert np.all(np.isfinite(embeddings))


def test_the_decoder_sees_no_target_before_it_has_said_it(task: TextEncoderTask) -> None:
    model = SpanModel(TINY, decoder_layers=1, rngs=nnx.Rngs(0))
    batch = jax.tree.map(jnp.asarray, task.batch(0))
    changed = batch.targets.at[:, 3].set(7)

    before, after = model(batch.inputs, batch.targets), model(batch.inputs, changed)

    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert np.any(before[:, 4] != after[:, 4])


def test_a_vocabulary_larger_than_the_embedding_is_refused(vocabulary: Vocabulary) -> None:
    small = replace(TINY, vocabulary_size=vocabulary.size - 1)
    with pytest.raises(ValueError, match="the embedding has only"):
        TextEncoderTask(small, TINY_RECIPE, captions, vocabulary)
