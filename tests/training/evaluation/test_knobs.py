"""Tests for the search of knobs: one after the other, on the same prompts, the best is kept."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from training.data.scenes import render
from training.data.sprites import load_sprites
from training.evaluation.detector import Detector
from training.evaluation.knobs import search
from training.evaluation.scenes import Asked, Painter, draw_questions

CANDIDATES = {"guidance": (1.0, 2.0, 4.0), "temperature": (0.5, 1.0)}
START = {"guidance": 1.0, "temperature": 1.0}


def test_the_search_finds_the_knobs_that_paint_best_and_tries_none_twice(artwork: Path) -> None:
    sprites = load_sprites(artwork)
    questions = draw_questions(sprites.vocabulary, 6, seed=1, groups=("single",))

    def painter(knobs: Mapping[str, float]) -> Painter:
        # So many of the six pictures come out: 2 and 0.5 are best, and 2 is found first.
        right = {1.0: 1, 2.0: 4, 4.0: 2}[knobs["guidance"]] + (knobs["temperature"] == 0.5)

        def paint(asked: Asked) -> np.ndarray:
            if questions.index(asked) < right:
                return render(asked.scene, sprites, 128)
            return np.full((128, 128, 3), 255, np.uint8)

        return paint

    trials = list(search(START, questions, painter, Detector(sprites), CANDIDATES))

    asked = [tuple(trial.knobs.values()) for trial in trials]
    assert asked == [(1.0, 1.0), (2.0, 1.0), (4.0, 1.0), (2.0, 0.5)]
    best = max(trials, key=lambda trial: trial.score)
    assert best.knobs == {"guidance": 2.0, "temperature": 0.5}
    assert best.all_right == best.objects == pytest.approx(5 / 6)


def test_a_search_without_questions_or_without_a_start_is_refused(artwork: Path) -> None:
    sprites = load_sprites(artwork)
    questions = draw_questions(sprites.vocabulary, 1, seed=1, groups=("single",))
    detector = Detector(sprites)

    def painter(knobs: Mapping[str, float]) -> Painter:
        raise AssertionError("nothing is to be painted")

    with pytest.raises(ValueError, match="got none"):
        next(search(START, [], painter, detector, CANDIDATES))
    with pytest.raises(ValueError, match="got none for temperature"):
        next(search({"guidance": 1.0}, questions, painter, detector, CANDIDATES))
