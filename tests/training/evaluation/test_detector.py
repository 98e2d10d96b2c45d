"""The detector reads what is drawn, and recognises nothing in what is damaged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.data.scenes import BOARD_16, Board, Placed, Scene, draw_scene, render
from training.data.sprites import load_sprites
from training.evaluation.damage import DAMAGES, damaged
from training.evaluation.detector import Detector
from training.evaluation.reliability import measure_detector
from training.evaluation.testbed import Testbed, open_testbed


def _scene(testbed: Testbed, **changed: object) -> Scene:
    scene = draw_scene(testbed.vocabulary, testbed.board, np.random.default_rng(7), kind="pair")
    return replace(scene, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["single", "pair", "count", "several"])
def test_objects_are_read_with_their_style_and_place(testbed: Testbed, kind: str) -> None:
    random = np.random.default_rng(3)
    for _ in range(4):
        scene = draw_scene(testbed.vocabulary, testbed.board, random, kind=kind)
        reading = testbed.detector.read(render(scene, testbed.sprites, testbed.side_px))
        assert {(each.index, each.style, each.row, each.column) for each in reading.objects} == {
            (placed.index, scene.style, placed.row, placed.column) for placed in scene.placed
        }
        assert (reading.background, reading.style) == (scene.background, scene.style)
        assert reading.unrecognised == 0
        assert max(each.distance for each in reading.objects) < 0.1


def test_a_board_of_sixteen_cells_is_read_at_half_cells_too(artwork: Path) -> None:
    sprites = load_sprites(artwork)
    detector = Detector(sprites, BOARD_16)
    random = np.random.default_rng(1)
    scene = draw_scene(sprites.vocabulary, BOARD_16, random, kind="single")
    (placed,) = scene.placed
    picture = render(scene, sprites, 256)
    (found,) = detector.read(np.roll(picture, 8, axis=1)).objects  # by half a cell
    assert (found.index, found.row, found.column) == (
        placed.index,
        placed.row,
        placed.column + 0.5,
    )


def test_the_same_picture_is_read_the_same_at_another_size_and_after_another(
    testbed: Testbed,
) -> None:
    scene = _scene(testbed)
    small, large = (render(scene, testbed.sprites, side) for side in (128, 256))
    first = testbed.detector.read(small)
    assert {each.index for each in testbed.detector.read(large).objects} == {
        each.index for each in first.objects
    }
    assert testbed.detector.read(small) == first


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_object_is_not_recognised_and_counted_all_the_same(
    testbed: Testbed, damage: str
) -> None:
    scene = _scene(testbed, background="white")
    blue, rose = 2, 5  # far from each other and from white, also where they are grey
    scene = replace(
        scene,
        style="outline",
        placed=tuple(
            replace(placed, index=index)
            for placed, index in zip(scene.placed, (blue, rose), strict=True)
        ),
    )
    picture = damaged(scene, testbed.sprites, 128, damage, 0, np.random.default_rng(0))
    reading = testbed.detector.read(picture)
    assert [each.index for each in reading.objects] == [rose]
    assert reading.unrecognised == 1


def test_an_empty_picture_shows_no_object(testbed: Testbed) -> None:
    reading = testbed.detector.read(np.full((128, 128, 3), 255, np.uint8))
    assert (reading.background, reading.objects, reading.unrecognised) == ("white", (), 0)


def test_a_colour_that_no_background_has_is_none(testbed: Testbed) -> None:
    reading = testbed.detector.read(np.full((128, 128, 3), (255, 140, 0), np.uint8))
    assert reading.background is None


def test_an_object_that_is_no_sprite_is_unrecognised(testbed: Testbed) -> None:
    picture = np.full((128, 128, 3), 255, np.uint8)
    picture[20:60:4, 20:60] = 0
    reading = testbed.detector.read(picture)
    assert (reading.objects, reading.unrecognised) == ((), 1)


def test_what_is_not_a_square_rgb_picture_is_refused(testbed: Testbed) -> None:
    with pytest.raises(ValueError, match="square"):
        testbed.detector.read(np.zeros((64, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="RGB bytes"):
        testbed.detector.read(np.zeros((64, 64, 3), np.float32))


def test_a_board_whose_half_cells_are_no_pixels_is_refused(artwork: Path) -> None:
    board = Board(cells=12, alone_cells=8, together_cells=5, offsets=1)
    with pytest.raises(ValueError, match="cells divide 16, got 12"):
        Detector(load_sprites(artwork), board)


def test_the_detector_measures_itself(testbed: Testbed) -> None:
    report = measure_detector(testbed, 6, seed=0)
    assert report.all_right["composed"].value == 1.0
    assert set(report.accepted) == set(DAMAGES)
    assert report.accepted["shifted"].value < 0.5
    lenient = measure_detector(testbed, 6, seed=0, worst_distance=1e9)
    assert lenient.accepted["shifted"].value > report.accepted["shifted"].value
    with pytest.raises(ValueError, match="at least 1 picture"):
        measure_detector(testbed, 0, seed=0)


def test_a_damage_changes_its_object_alone(testbed: Testbed) -> None:
    scene = _scene(testbed)
    whole = render(scene, testbed.sprites, 128)
    for damage in DAMAGES:
        picture = damaged(scene, testbed.sprites, 128, damage, 0, np.random.default_rng(0))
        changed = np.argwhere((picture != whole).any(axis=-1)) / 16
        placed: Placed = scene.placed[0]
        start = np.array([placed.row, placed.column])
        assert len(changed) > 0
        assert (changed >= start - 1).all()
        assert (changed <= start + placed.cells + 1).all()


def test_a_testbed_needs_the_objects_of_its_preset(artwork: Path) -> None:
    with pytest.raises(ValueError, match=r"expected 1 to 8 objects, .* got 256"):
        open_testbed("demo256", artwork)
    few = open_testbed("demo256", artwork, objects=2)
    assert few.vocabulary.objects == few.sprites.vocabulary.objects[:2]
    with pytest.raises(ValueError, match=r"expected 1 to 8 objects, .* got 0"):
        open_testbed("demo256", artwork, objects=0)
