"""Tests for captions: they say what the scene shows and nothing else."""

from itertools import islice
from pathlib import Path

import numpy as np

from training.data.captions import (
    describe,
    describe_fully,
    training_captions,
    with_article,
)
from training.data.scene_batches import SceneBatches
from training.data.scenes import draw_scene
from training.data.sprites import load_sprites


def test_a_caption_names_every_object_and_no_other(artwork: Path) -> None:
    vocabulary = load_sprites(artwork).vocabulary
    for index in range(200):
        random = np.random.default_rng(index)
        scene = draw_scene(vocabulary, random)
        words = describe(scene, vocabulary, random).replace(",", " ").split()
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
        scene = draw_scene(vocabulary, random)
        words = describe(scene, vocabulary, random).replace(",", " ").split()
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
        scene = draw_scene(vocabulary, random, kind="count")
        words = describe(scene, vocabulary, random).replace(",", " ").split()
        count = len(scene.placed)
        assert {("two", "three", "four")[count - 2], str(count)} & set(words)


def test_places_are_named_as_one_reads_and_are_where_the_objects_stand(artwork: Path) -> None:
    vocabulary = load_sprites(artwork).vocabulary
    random = np.random.default_rng(5)
    for _ in range(40):
        scene = draw_scene(vocabulary, random, kind="pair")
        caption = describe_fully(scene, vocabulary, random, by_place=True)
        ends = ("on the left", "on the right"), ("at the top", "at the bottom")
        across, (begin, end) = next(
            (axis, places) for axis, places in enumerate(ends) if places[0] in caption
        )
        first, second = sorted(
            scene.placed, key=lambda placed: placed.row if across else placed.column
        )
        names = [with_article(vocabulary.objects[placed.index]) for placed in (first, second)]

        assert f"{names[0]} {begin} and {names[1]} {end}" in caption
        other = describe_fully(scene, vocabulary, random, by_place=False)
        assert f"{end} and " not in other
        assert f"{begin} and " not in other


def test_captions_and_batches_are_functions_of_seed_and_step(artwork: Path) -> None:
    sprites = load_sprites(artwork)
    first, again = (list(islice(training_captions(sprites.vocabulary, 3), 20)) for _ in range(2))
    assert first == again
    batches = SceneBatches(sprites=sprites, side_px=32, batch_size=3, seed=1)
    images, captions = batches.captioned(5)
    np.testing.assert_array_equal(batches.captioned(5)[0], images)
    assert batches.captioned(6)[1] != captions
    assert batches.low(5).shape == (3, 16, 16, 3)
