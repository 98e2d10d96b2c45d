"""Tests for composed scenes: nothing held out, nothing overlapping, relations as named."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from training.data.scenes import (
    BOARD_8,
    BOARD_16,
    Board,
    Placed,
    Scene,
    count_is_held_out,
    draw_scene,
    draw_training_scene,
    pair_is_held_out,
    render,
    scene_is_held_out,
)
from training.data.sprites import load_sprites


def test_the_held_out_rule_is_that_of_the_vocabulary_file() -> None:
    names = [f"thing {index}" for index in range(60)]
    pairs = [pair_is_held_out(*pair) for pair in combinations(names, 2)]
    assert 0.05 < np.mean(pairs) < 0.15
    assert all(pair_is_held_out(a, b) == pair_is_held_out(b, a) for a, b in combinations(names, 2))
    assert not any(count_is_held_out(name, 1) for name in names)


def test_no_training_scene_shows_a_held_out_combination(artwork: Path) -> None:
    vocabulary = load_sprites(artwork).vocabulary
    drawn = [draw_scene(vocabulary, BOARD_8, np.random.default_rng(index)) for index in range(400)]
    trained = [
        draw_training_scene(vocabulary, BOARD_8, np.random.default_rng(index))
        for index in range(400)
    ]
    assert any(scene_is_held_out(scene, vocabulary) for scene in drawn)
    assert not any(scene_is_held_out(scene, vocabulary) for scene in trained)


@pytest.mark.parametrize("board", [BOARD_8, BOARD_16])
def test_objects_lie_on_the_board_and_never_overlap(artwork: Path, board: Board) -> None:
    vocabulary = load_sprites(artwork).vocabulary
    for index in range(300):
        scene = draw_scene(vocabulary, board, np.random.default_rng(index))
        covered = np.zeros((board.cells, board.cells), int)
        for placed in scene.placed:
            assert placed.row + placed.cells <= board.cells
            assert placed.column + placed.cells <= board.cells
            covered[
                placed.row : placed.row + placed.cells,
                placed.column : placed.column + placed.cells,
            ] += 1
        assert covered.max() == 1


@pytest.mark.parametrize("board", [BOARD_8, BOARD_16])
def test_a_pair_stands_as_its_relation_says(artwork: Path, board: Board) -> None:
    vocabulary = load_sprites(artwork).vocabulary
    seen = set()
    for index in range(80):
        scene = draw_scene(vocabulary, board, np.random.default_rng(index), kind="pair")
        first, second = scene.placed
        holds = {
            "left of": first.column + first.cells <= second.column,
            "right of": second.column + second.cells <= first.column,
            "above": first.row + first.cells <= second.row,
            "below": second.row + second.cells <= first.row,
        }
        assert scene.relation is not None
        assert holds[scene.relation]
        seen.add(scene.relation)
    assert seen == {"left of", "right of", "above", "below"}


def test_a_board_too_small_for_two_objects_is_refused() -> None:
    with pytest.raises(ValueError, match="must hold two objects of 4 cells side by side"):
        Board(cells=8, alone_cells=5, together_cells=4, offsets=2)


def test_a_rendered_scene_shows_its_object_on_its_background(artwork: Path) -> None:
    sprites = load_sprites(artwork)
    box = next(i for i, thing in enumerate(sprites.vocabulary.objects) if thing.name == "box")
    scene = Scene(
        board=BOARD_8,
        kind="single",
        placed=(Placed(index=box, row=1, column=2, cells=5),),
        style="solid",
        background="navy",
    )
    image = render(scene, sprites, 64)
    assert image.shape == (64, 64, 3)
    assert tuple(image[0, 0]) == (0, 0, 128)
    assert tuple(image[28, 36]) == (65, 225, 90)


def test_a_side_that_is_no_multiple_of_the_board_is_refused(artwork: Path) -> None:
    sprites = load_sprites(artwork)
    scene = draw_scene(sprites.vocabulary, BOARD_8, np.random.default_rng(0))
    with pytest.raises(ValueError, match="multiple of 8, got 60"):
        render(scene, sprites, 60)
