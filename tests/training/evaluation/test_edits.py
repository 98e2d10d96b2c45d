"""Edits measured: an editor that does as it is asked is all right, one that idles is not."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from training.evaluation.edits import (
    ATTRIBUTES,
    KINDS,
    EditCase,
    draw_edit_cases,
    mask_of,
    measure_inpaint,
    measure_mask_free,
    measure_outpaint,
    picture_of,
    shares_of,
)
from training.evaluation.testbed import Testbed

COUNT = 6


class Perfect:
    """Draws what each case wants."""

    def __init__(self, cases: Sequence[EditCase], testbed: Testbed) -> None:
        self.testbed, self.by_seed = testbed, {case.seed: case for case in cases}

    def drawn(self, seed: int) -> np.ndarray:
        return picture_of(self.by_seed[seed].wanted, self.testbed)

    def inpaint(self, picture: np.ndarray, mask: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        return np.where(mask[..., None], self.drawn(seed), picture)

    def outpaint(self, picture: np.ndarray, right_px: int, prompt: str, seed: int) -> np.ndarray:
        return np.concatenate([picture, self.drawn(seed)[:, -right_px:]], axis=1)

    def edit(
        self, picture: np.ndarray, prompt: str, iterations: Sequence[int], seed: int
    ) -> Mapping[int, np.ndarray]:
        return {at: self.drawn(seed) if at >= 50 else picture for at in iterations}


class Idle:
    """Changes nothing, or fills everything with grey."""

    def inpaint(self, picture: np.ndarray, mask: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        return picture

    def outpaint(self, picture: np.ndarray, right_px: int, prompt: str, seed: int) -> np.ndarray:
        height, width = picture.shape[:2]
        return np.full((height, width + right_px, 3), 77, np.uint8)

    def edit(
        self, picture: np.ndarray, prompt: str, iterations: Sequence[int], seed: int
    ) -> Mapping[int, np.ndarray]:
        return dict.fromkeys(iterations, picture)


def test_what_is_asked_for_is_found_and_nothing_else_counts(testbed: Testbed) -> None:
    for kind, measure in (("inpaint", measure_inpaint), ("outpaint", measure_outpaint)):
        cases = draw_edit_cases(kind, testbed, COUNT, seed=1)
        perfect = shares_of(list(measure(cases, testbed, Perfect(cases, testbed))))
        idle = shares_of(list(measure(cases, testbed, Idle())))

        assert {share.value for share in perfect.values()} == {1.0}
        assert idle["asked object is there"].value == 0
        assert idle["untouched"].value == (kind == "inpaint")


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_an_edit_is_followed_over_its_iterations(testbed: Testbed, attribute: str) -> None:
    cases = draw_edit_cases(attribute, testbed, COUNT, seed=2)
    courses = list(
        measure_mask_free(
            cases,
            testbed,
            Perfect(cases, testbed),
            attribute=attribute,
            iterations=[0, 50, 100],
        )
    )
    curve = {at: shares_of([course[at] for course in courses]) for at in (0, 50, 100)}
    assert [curve[at][f"{attribute} as asked"].value for at in curve] == [0, 1, 1]
    assert [curve[at]["both"].value for at in curve] == [0, 1, 1]
    assert all(curve[at]["objects kept"].value == 1 for at in curve)


def test_cases_are_repeatable_and_ask_for_what_is_not_there(testbed: Testbed) -> None:
    for kind in KINDS:
        cases = draw_edit_cases(kind, testbed, COUNT, seed=3)
        assert cases == draw_edit_cases(kind, testbed, COUNT, seed=3)
        for case in cases:
            assert case.scene != case.wanted
            assert case.prompt
    for case in draw_edit_cases("outpaint", testbed, COUNT, seed=3):
        there, kept = case.scene.placed[0], case.wanted.placed[0]
        assert there.column - kept.column == testbed.board.cells // 2


def test_a_mask_covers_its_object_and_no_more(testbed: Testbed) -> None:
    (case,) = draw_edit_cases("inpaint", testbed, 1, seed=4)
    mask = mask_of(case.scene.placed[1], testbed)
    before, after = (picture_of(each, testbed) for each in (case.scene, case.wanted))
    assert (before[~mask] == after[~mask]).all()
    assert (before[mask] != after[mask]).any()


def test_what_cannot_be_drawn_is_refused(testbed: Testbed) -> None:
    with pytest.raises(ValueError, match="unknown edit 'erase': expected one of inpaint"):
        draw_edit_cases("erase", testbed, 1, seed=0)
    with pytest.raises(ValueError, match="at least 1 case"):
        draw_edit_cases("style", testbed, 0, seed=0)
