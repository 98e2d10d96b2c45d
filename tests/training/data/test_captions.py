"""Tests for captions: they say what the scene shows and nothing else."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from training.data.captions import (
    LABELS,
    caption_of,
    full_caption,
    label_classes,
    name_of,
    training_captions,
    with_article,
)
from training.data.scene_batches import SceneBatches
from training.data.scenes import BOARD_8, draw_scene
from training.data.sprites import load_sprites


def test_a_caption_names_every_object_and_no_other(artwork: Path) -> None:
    vocabulary = load_sprites(artwork).vocabulary
    for index in range(200):
        random = np.random.default_rng(index)
        scene = draw_scene(vocabulary, BOARD_8, random)
        words = caption_of(scene, vocabulary, random).text.replace(",", " ").split()
        shown = {vocabulary.objects[placed.index].name for placed in scene.placed}
        named = {
            thing.name for thing in vocabulary.objects if {thing.name, thing.plural} & {*words}
        }
        assert named == shown


def test_a_caption_that_names_a_background_or_style_names_the_right_one(artwork: Path) -> None:
    vocabulary = load_sprites(artwork).vocabulary
    said = {"background": 0, "style": 0}
    for index in range(300):
        random = np.random.default_rng(index)
        scene = draw_scene(vocabulary, BOARD_8, random)
        words = caption_of(scene, vocabulary, random).text.replace(",", " ").split()
        colours = [word for word in words if word in vocabulary.backgrounds]
        styles = [word for word in words if word in vocabulary.styles.values()]
        assert colours in ([], [scene.background])
        assert styles in ([], [vocabulary.styles[scene.style]])
        said["background"] += len(colours)
        said["style"] += len(styles)
    assert 250 < said["background"] < 290
    assert 250 < said["style"] < 290


def test_a_count_is_said_in_words_or_figures(artwork: Path) -> None:
    vocabulary = load_sprites(artwork).vocabulary
    for index in range(60):
        random = np.random.default_rng(index)
        scene = draw_scene(vocabulary, BOARD_8, random, kind="count")
        words = caption_of(scene, vocabulary, random).text.replace(",", " ").split()
        count = len(scene.placed)
        assert {("two", "three", "four")[count - 2], str(count)} & set(words)


def test_a_caption_by_place_says_where_each_object_is_in_either_order(artwork: Path) -> None:
    vocabulary = load_sprites(artwork).vocabulary
    random = np.random.default_rng(5)
    places = {
        "left of": ("on the left", "on the right"),
        "right of": ("on the right", "on the left"),
        "above": ("at the top", "at the bottom"),
        "below": ("at the bottom", "at the top"),
    }
    beside = {"on the left": "to its left", "on the right": "to its right"} | {
        "at the top": "above",
        "at the bottom": "below",
    }
    first_named = set()
    for _ in range(200):
        scene = draw_scene(vocabulary, BOARD_8, random, kind="pair")
        assert scene.relation is not None
        caption = full_caption(scene, vocabulary, random, by_place=True).text
        names = [name_of(vocabulary.objects[placed.index]) for placed in scene.placed]
        said = [
            f"{name} {place}" in caption or f"{place} {name}" in caption
            for name, place in zip(names, places[scene.relation], strict=True)
        ]
        if not all(said):  # the second of the text is placed beside the first
            second = said.index(False)
            assert f"{names[second]} {beside[places[scene.relation][second]]}" in caption
        first_named.add(caption.index(names[0]) < caption.index(names[1]))
    assert first_named == {True, False}


@pytest.mark.parametrize("kind", ["single", "pair", "count", "several"])
def test_labels_say_of_each_noun_what_the_scene_shows(artwork: Path, kind: str) -> None:
    vocabulary = load_sprites(artwork).vocabulary
    classes = label_classes(vocabulary)
    random = np.random.default_rng(7)
    places = ("left", "right", "top", "bottom")
    for _ in range(60):
        scene = draw_scene(vocabulary, BOARD_8, random, kind=kind)
        caption = full_caption(scene, vocabulary, random, by_place=False)
        words = caption.text.split(" ")
        assert len(caption.nouns) == (1 if kind == "count" else len(scene.placed))
        for noun in caption.nouns:
            label = dict(zip(LABELS, noun.labels, strict=True))
            assert all(0 <= label[name] < classes[name] for name in LABELS)
            thing = vocabulary.objects[label["object"]]
            assert words[noun.word].rstrip(",") in (thing.singular, thing.plural)
            assert label["count"] == (len(scene.placed) - 1 if kind == "count" else 0)
            assert list(vocabulary.styles)[label["style"]] == scene.style
            assert list(vocabulary.backgrounds)[label["background"]] == scene.background
            if kind == "pair":
                placed = next(one for one in scene.placed if one.index == label["object"])
                other = next(one for one in scene.placed if one is not placed)
                across, down = placed.column - other.column, placed.row - other.row
                holds = {"left": -across, "right": across, "top": -down, "bottom": down}
                assert holds[places[label["place"]]] >= BOARD_8.together_cells
            else:
                assert label["place"] == len(places)


def test_what_a_caption_leaves_out_is_labelled_as_not_said(artwork: Path) -> None:
    vocabulary = load_sprites(artwork).vocabulary
    random = np.random.default_rng(3)
    silent = 0
    for _ in range(200):
        scene = draw_scene(vocabulary, BOARD_8, random)
        caption = caption_of(scene, vocabulary, random)
        said = any(
            word.rstrip(",") in vocabulary.styles.values() for word in caption.text.split(" ")
        )
        for noun in caption.nouns:
            assert (noun.labels[LABELS.index("style")] == len(vocabulary.styles)) != said
        silent += not said
    assert 8 < silent < 40


@pytest.mark.parametrize(
    ("words", "expected"),
    [("owl", "an owl"), ("unicorn", "a unicorn"), ("orange", "an orange"), ("T-rex", "a T-rex")],
)
def test_the_article_follows_the_sound(words: str, expected: str) -> None:
    assert with_article(words) == expected


def test_captions_and_batches_are_functions_of_seed_and_step(artwork: Path) -> None:
    sprites = load_sprites(artwork)
    first, again = (
        list(islice(training_captions(sprites.vocabulary, BOARD_8, 3), 20)) for _ in range(2)
    )
    assert first == again
    batches = SceneBatches(sprites=sprites, board=BOARD_8, side_px=32, batch_size=3, seed=1)
    images, captions = batches.captioned(5)
    np.testing.assert_array_equal(batches.captioned(5)[0], images)
    np.testing.assert_array_equal(batches.images(5), images)
    assert batches.captioned(6)[1] != captions
