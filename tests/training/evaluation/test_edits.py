"""Edits measured: an editor that does as it is asked is all right, one that idles is not."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from training.data.scenes import CELLS, render
from training.data.sprites import SpriteSet, load_sprites
from training.evaluation.detector import Detector
from training.evaluation.edits import (
    ATTRIBUTES,
    KINDS,
    SIDE_PX,
    Case,
    draw_cases,
    mask_of,
    measure_inpaint,
    measure_mask_free,
    measure_outpaint,
    shares_of,
)

COUNT = 6


class Perfect:
    """Draws what each case wants."""

    def __init__(self, cases: Sequence[Case], sprites: SpriteSet) -> None:
        self.sprites, self.by_seed = sprites, {case.seed: case for case in cases}

    def drawn(self, seed: int) -> np.ndarray:
        return render(self.by_seed[seed].wanted, self.sprites, SIDE_PX)

    def inpaint(self, picture: np.ndarray, mask: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        return np.where(mask[..., None], self.drawn(seed), picture)

    def outpaint(self, picture: np.ndarray, right_px: int, prompt: str, seed: int) -> np.ndarray:
        return np.concatenate([picture, self.drawn(seed)[:, -right_px:]], axis=1)

    def edit(
        self, picture: np.ndarray, prompt: str, keep: Sequence[int], seed: int
    ) -> Mapping[int, np.ndarray]:
        return {at: self.drawn(seed) if at >= 50 else picture for at in keep}


class Idle:
    """Changes nothing, or repaints everything in grey."""

    def inpaint(self, picture: np.ndarray, mask: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        return picture

    def outpaint(self, picture: np.ndarray, right_px: int, prompt: str, seed: int) -> np.ndarray:
        return np.full((SIDE_PX, SIDE_PX + right_px, 3), 77, np.uint8)

    def edit(
        self, picture: np.ndarray, prompt: str, keep: Sequence[int], seed: int
    ) -> Mapping[int, np.ndarray]:
        return dict.fromkeys(keep, picture)


@pytest.fixture(scope="module")
def sprites(artwork: Path) -> SpriteSet:
    return load_sprites(artwork)


@pytest.fixture(scope="module")
def detector(sprites: SpriteSet) -> Detector:
    return Detector(sprites)


def test_what_is_asked_for_is_found_and_nothing_else_counts(
    sprites: SpriteSet, detector: Detector
) -> None:
    for kind, measure in (("inpaint", measure_inpaint), ("outpaint", measure_outpaint)):
        cases = draw_cases(kind, sprites, COUNT, seed=1)
        perfect = shares_of(list(measure(cases, sprites, Perfect(cases, sprites), detector)))
        idle = shares_of(list(measure(cases, sprites, Idle(), detector)))

        assert set(perfect.values()) == {1.0}
        assert idle["asked object is there"] == 0
        assert idle["untouched"] == (kind == "inpaint")


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_an_edit_is_followed_over_its_iterations(
    sprites: SpriteSet, detector: Detector, attribute: str
) -> None:
    cases = draw_cases(attribute, sprites, COUNT, seed=2)
    courses = list(
        measure_mask_free(
            cases,
            sprites,
            Perfect(cases, sprites),
            detector,
            attribute=attribute,
            keep=[0, 50, 100],
        )
    )
    curve = {at: shares_of([course[at] for course in courses]) for at in (0, 50, 100)}
    asked = f"{attribute} as asked"
    assert [curve[at][asked] for at in curve] == [0, 1, 1]
    assert all(curve[at]["objects recognised"] == 1 for at in curve)


def test_cases_are_repeatable_and_ask_for_what_is_not_there(sprites: SpriteSet) -> None:
    for kind in KINDS:
        cases = draw_cases(kind, sprites, COUNT, seed=3)
        assert cases == draw_cases(kind, sprites, COUNT, seed=3)
        for case in cases:
            assert case.scene != case.wanted
            assert case.prompt
    for case in draw_cases("outpaint", sprites, COUNT, seed=3):
        there, kept = case.scene.placed[0], case.wanted.placed[0]
        assert there.column - kept.column == CELLS // 2


def test_a_mask_covers_its_object_and_no_more(sprites: SpriteSet) -> None:
    (case,) = draw_cases("inpaint", sprites, 1, seed=4)
    mask = mask_of(case.scene.placed[1])
    before, after = (render(each, sprites, SIDE_PX) for each in (case.scene, case.wanted))
    assert (before[~mask] == after[~mask]).all()
    assert (before[mask] != after[mask]).any()


def test_what_cannot_be_drawn_is_refused(sprites: SpriteSet) -> None:
    with pytest.raises(ValueError, match="unknown edit 'erase': expected one of inpaint"):
        draw_cases("erase", sprites, 1, seed=0)
    with pytest.raises(ValueError, match="at least 1 case"):
        draw_cases("style", sprites, 0, seed=0)
