"""The linear probe finds what embeddings say, and nothing where they say nothing."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from services.presets import preset
from training import runs
from training.data.captions import LABELS, label_classes, training_captions
from training.evaluation.testbed import Testbed
from training.evaluation.text_probe import (
    LabelledNouns,
    held_out_captions,
    probe,
    probe_text_encoder,
)
from training.recipe_changes import RecipeChanges

CLASSES = {"object": 9, "place": 5, "count": 5, "style": 3, "background": 4}

TWO_STEPS = RecipeChanges(steps=2)


def _nouns(count: int, random: np.random.Generator, said: tuple[str, ...]) -> LabelledNouns:
    """Embeddings that are one-hot in the labels that they say, and noise in the others."""
    labels = np.stack([random.integers(CLASSES[name], size=count) for name in LABELS], axis=-1)
    parts = [
        np.eye(CLASSES[name])[labels[:, at]] if name in said else random.normal(size=(count, 3))
        for at, name in enumerate(LABELS)
    ]
    return LabelledNouns(np.concatenate(parts, axis=-1).astype(np.float32), labels)


def test_the_probe_reads_the_labels_that_embeddings_say_and_only_these() -> None:
    random = np.random.default_rng(0)
    said = ("object", "place", "style")
    training, test = _nouns(600, random, said), _nouns(300, random, said)
    shares = probe(training, test, CLASSES, steps=200)
    assert list(shares) == [*LABELS, "all"]
    assert all(shares[name].value == 1.0 for name in said)
    assert shares["count"].value < 0.4
    assert shares["background"].value < 0.5
    assert shares["all"].value <= min(shares["count"].value, shares["background"].value)
    assert shares["all"].total == 300


def test_no_held_out_caption_is_a_training_caption(testbed: Testbed) -> None:
    held_out = list(islice(held_out_captions(testbed, 0), 20))
    assert held_out == list(islice(held_out_captions(testbed, 0), 20))
    known = {
        frozenset((noun.labels[0], noun.labels[2]) for noun in caption.nouns)
        for caption in islice(training_captions(testbed.vocabulary, testbed.board, 0), 2000)
    }
    assert not known & {
        frozenset((noun.labels[0], noun.labels[2]) for noun in caption.nouns)
        for caption in held_out
        if len(caption.nouns) < 3
    }


def test_an_untrained_encoder_is_probed(artwork: Path, testbed: Testbed, tmp_path: Path) -> None:
    task = runs.text_encoder_task(
        preset("tiny"), artwork, tmp_path / "run", seed=0, changes=TWO_STEPS
    )
    task.export(
        task.params(task.initial_state(task.given)), tmp_path / "text_encoder", {"preset": "tiny"}
    )
    shares = probe_text_encoder(
        tmp_path / "text_encoder", testbed, training=60, test=30, steps=20, seed=0
    )
    assert set(shares) == {*label_classes(testbed.vocabulary), "all"}
    assert shares["all"].total > 30  # nouns, of 30 captions
    with pytest.raises(ValueError, match="at least 1 caption of each sort and 1 step"):
        probe_text_encoder(tmp_path / "text_encoder", testbed, training=60, test=0, steps=1, seed=0)
