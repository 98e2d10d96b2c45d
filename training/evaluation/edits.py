"""Edits measured: drawn scenes are edited through the servers and the results read back.

- Inpaint: one of two objects is masked and another asked for in its place. Right if that object is
  read there; `untouched` if every pixel outside the mask is equal.
- Outpaint: a scene with one object is extended to the right by half its width and a second object
  asked for there. Right if that object is read in the new part; `untouched` as before.
- Edit without a mask: another background, or another style, is asked for. Right if that is read;
  `objects kept` if exactly the scene's objects are still read. Both are followed over the
  iterations.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from jaxtyping import Bool, UInt8

from training.data.captions import full_caption
from training.data.scenes import Placed, Scene, draw_scene, render
from training.evaluation.detector import Reading
from training.evaluation.shares import Share, share_of
from training.evaluation.testbed import Testbed

Pixels = UInt8[np.ndarray, "h w 3"]
ATTRIBUTES = ("background", "style")


class Editor(Protocol):
    """Whatever edits pictures."""

    def inpaint(
        self, picture: Pixels, mask: Bool[np.ndarray, "h w"], prompt: str, seed: int
    ) -> Pixels:
        """Generates anew what the mask covers."""

    def outpaint(self, picture: Pixels, right_px: int, prompt: str, seed: int) -> Pixels:
        """Extends the picture to the right."""

    def edit(
        self, picture: Pixels, prompt: str, iterations: Sequence[int], seed: int
    ) -> Mapping[int, Pixels]:
        """Changes the picture without a mask; returns it after each of some iterations."""


@dataclass(frozen=True, kw_only=True)
class EditCase:
    """One edit that is asked for.

    Attributes:
        scene: What the picture shows before.
        wanted: What it is to show after; of an outpainting, in its rightmost square.
        prompt: The words sent.
        seed: Of the edit.
    """

    scene: Scene
    wanted: Scene
    prompt: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one edit.

    Attributes:
        case: What was asked.
        before: The picture.
        after: The result.
        answers: What is right about it, by question.
    """

    case: EditCase
    before: Pixels
    after: Pixels
    answers: Mapping[str, bool]


def draw_edit_cases(kind: str, testbed: Testbed, count: int, *, seed: int) -> list[EditCase]:
    """Draws edits to ask for, the same for the same seed.

    Args:
        kind: "inpaint", "outpaint", "background" or "style".
        testbed: What scenes are made of.
        count: How many.
        seed: Of the scenes, the words and the edits.

    Raises:
        ValueError: there is no such kind, or less than one is wanted.
    """
    if kind not in _WANTED:
        raise ValueError(f"unknown edit {kind!r}: expected one of {', '.join(_WANTED)}")
    if count < 1:
        raise ValueError(f"expected at least 1 case, got {count}")
    random = np.random.default_rng([seed, list(_WANTED).index(kind)])
    cases = []
    for index in range(count):
        scene, wanted = _WANTED[kind](testbed, random)
        prompt = full_caption(wanted, testbed.vocabulary, random, by_place=False).text
        cases.append(
            EditCase(scene=scene, wanted=wanted, prompt=prompt, seed=seed * 1_000_003 + index)
        )
    return cases


def _other_object(testbed: Testbed, random: np.random.Generator, scene: Scene) -> int:
    there = {placed.index for placed in scene.placed}
    others = [at for at in range(len(testbed.vocabulary.objects)) if at not in there]
    return int(random.choice(others))


def _drawn(testbed: Testbed, random: np.random.Generator, kind: str) -> Scene:
    return draw_scene(testbed.vocabulary, testbed.board, random, kind=kind)


def _replaced(testbed: Testbed, random: np.random.Generator) -> tuple[Scene, Scene]:
    scene = _drawn(testbed, random, "pair")
    first, second = scene.placed
    new = replace(second, index=_other_object(testbed, random, scene))
    return scene, replace(scene, placed=(first, new))


def _extended(testbed: Testbed, random: np.random.Generator) -> tuple[Scene, Scene]:
    pair, board = _drawn(testbed, random, "pair"), testbed.board
    row = int(random.choice(board.middle(board.together_cells)))
    (left, *_), seconds = board.starts
    half, right = seconds[0], seconds[-1]
    there = replace(pair.placed[0], row=row, column=half)
    # In the rightmost square of the result, what is there lies in the left half.
    wanted = replace(there, column=left), replace(pair.placed[1], row=row, column=right)
    before = replace(pair, kind="single", placed=(there,), relation=None)
    return before, replace(pair, placed=wanted, relation="left of")


def _recoloured(testbed: Testbed, random: np.random.Generator) -> tuple[Scene, Scene]:
    scene = _drawn(testbed, random, str(random.choice(["single", "pair"])))
    others = [name for name in testbed.vocabulary.backgrounds if name != scene.background]
    return scene, replace(scene, background=str(random.choice(others)))


def _restyled(testbed: Testbed, random: np.random.Generator) -> tuple[Scene, Scene]:
    scene = _drawn(testbed, random, str(random.choice(["single", "pair"])))
    others = [name for name in testbed.vocabulary.styles if name != scene.style]
    return scene, replace(scene, style=str(random.choice(others)))


_WANTED: Mapping[str, Callable[[Testbed, np.random.Generator], tuple[Scene, Scene]]] = {
    "inpaint": _replaced,
    "outpaint": _extended,
    "background": _recoloured,
    "style": _restyled,
}
KINDS = tuple(_WANTED)


def picture_of(scene: Scene, testbed: Testbed) -> Pixels:
    """Draws a scene at the size of the testbed's pictures."""
    return render(scene, testbed.sprites, testbed.side_px)


def mask_of(placed: Placed, testbed: Testbed) -> Bool[np.ndarray, "h w"]:
    """Returns the square that an object covers."""
    cell = testbed.side_px // testbed.board.cells
    mask = np.zeros((testbed.side_px, testbed.side_px), bool)
    top, left, side = placed.row * cell, placed.column * cell, placed.cells * cell
    mask[top : top + side, left : left + side] = True
    return mask


def measure_inpaint(
    cases: Sequence[EditCase], testbed: Testbed, editor: Editor
) -> Iterator[Outcome]:
    """Yields what came of each inpainting."""
    near = testbed.board.cells / 8  # cells; objects' positions differ by a cell in training
    for case in cases:
        before, new = picture_of(case.scene, testbed), case.wanted.placed[1]
        mask = mask_of(new, testbed)
        after = editor.inpaint(before, mask, case.prompt, case.seed)
        middle = new.row + new.cells / 2, new.column + new.cells / 2
        there = any(
            detection.index == new.index
            and max(abs(a - b) for a, b in zip(detection.centre, middle, strict=True)) <= near
            for detection in testbed.detector.read(after).objects
        )
        untouched = bool((after[~mask] == before[~mask]).all())
        answers = {"asked object is there": there, "untouched": untouched}
        yield Outcome(case=case, before=before, after=after, answers=answers)


def measure_outpaint(
    cases: Sequence[EditCase], testbed: Testbed, editor: Editor
) -> Iterator[Outcome]:
    """Yields what came of each outpainting to the right by half a picture."""
    side = testbed.side_px
    for case in cases:
        before = picture_of(case.scene, testbed)
        after = editor.outpaint(before, side // 2, case.prompt, case.seed)
        added = [
            detection.index
            for detection in testbed.detector.read(after[:, -side:]).objects
            if detection.centre[1] > testbed.board.cells / 2
        ]
        answers = {
            "asked object is there": case.wanted.placed[1].index in added,
            "any object is there": bool(added),
            "untouched": bool((after[:, :side] == before).all()),
        }
        yield Outcome(case=case, before=before, after=after, answers=answers)


def measure_mask_free(
    cases: Sequence[EditCase],
    testbed: Testbed,
    editor: Editor,
    *,
    attribute: str,
    iterations: Sequence[int],
) -> Iterator[Mapping[int, Outcome]]:
    """Yields for each edit what came of it after each of some iterations.

    Args:
        cases: What to ask for.
        testbed: The artwork and the detector.
        editor: Edits.
        attribute: What is to change: "background" or "style".
        iterations: After which the picture is read.
    """
    for case in cases:
        before = picture_of(case.scene, testbed)
        edited = editor.edit(before, case.prompt, iterations, case.seed)
        yield {
            iteration: Outcome(
                case=case,
                before=before,
                after=edited[iteration],
                answers=_answers(case.wanted, testbed.detector.read(edited[iteration]), attribute),
            )
            for iteration in iterations
        }


def _answers(wanted: Scene, reading: Reading, attribute: str) -> dict[str, bool]:
    asked = getattr(reading, attribute) == getattr(wanted, attribute)
    kept = Counter(detection.index for detection in reading.objects) == Counter(
        placed.index for placed in wanted.placed
    )
    return {f"{attribute} as asked": asked, "objects kept": kept, "both": asked and kept}


def shares_of(outcomes: Sequence[Outcome]) -> dict[str, Share]:
    """Returns the share that is right, by question."""
    return {
        question: share_of(outcome.answers[question] for outcome in outcomes)
        for question in outcomes[0].answers
    }
