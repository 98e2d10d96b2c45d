"""Edits measured: drawn scenes are edited through the servers and the results read back.

- Inpaint: one of two objects is masked and another asked for in its place. Right if that object is
  read there; `untouched` if every pixel outside the mask is equal.
- Outpaint: a scene with one object is extended to the right by half its width and a second object
  asked for there. Right if that object is read in the new part; `untouched` as before.
- Edit without a mask: another background, or another style, is asked for. Right if that is read;
  `objects` if exactly the scene's objects are still read. Both are followed over the iterations.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from jaxtyping import Bool, UInt8

from training.data.captions import describe_fully
from training.data.scenes import CELLS, TOGETHER_CELLS, Placed, Scene, draw_scene, render
from training.data.sprites import SpriteSet
from training.evaluation.detector import Detector, Reading

SIDE_PX = 128
Pixels = UInt8[np.ndarray, "h w 3"]
ATTRIBUTES = ("background", "style")


class Editor(Protocol):
    """Whatever edits pictures."""

    def inpaint(
        self, picture: Pixels, mask: Bool[np.ndarray, "h w"], prompt: str, seed: int
    ) -> Pixels:
        """Repaints what the mask covers."""

    def outpaint(self, picture: Pixels, right_px: int, prompt: str, seed: int) -> Pixels:
        """Extends the picture to the right."""

    def edit(
        self, picture: Pixels, prompt: str, keep: Sequence[int], seed: int
    ) -> Mapping[int, Pixels]:
        """Changes the picture without a mask; returns it after each of the iterations."""


@dataclass(frozen=True, kw_only=True)
class Case:
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

    case: Case
    before: Pixels
    after: Pixels
    answers: Mapping[str, bool]


def draw_cases(kind: str, sprites: SpriteSet, count: int, *, seed: int) -> list[Case]:
    """Draws edits to ask for, the same for the same seed.

    Args:
        kind: "inpaint", "outpaint", "background" or "style".
        sprites: What scenes are made of.
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
        scene, wanted = _WANTED[kind](sprites, random)
        prompt = describe_fully(wanted, sprites.vocabulary, random, by_place=False)
        cases.append(Case(scene=scene, wanted=wanted, prompt=prompt, seed=seed * 1_000_003 + index))
    return cases


def _other_object(sprites: SpriteSet, random: np.random.Generator, scene: Scene) -> int:
    there = {placed.index for placed in scene.placed}
    others = [at for at in range(len(sprites.vocabulary.objects)) if at not in there]
    return int(random.choice(others))


def _replaced(sprites: SpriteSet, random: np.random.Generator) -> tuple[Scene, Scene]:
    scene = draw_scene(sprites.vocabulary, random, kind="pair")
    first, second = scene.placed
    new = replace(second, index=_other_object(sprites, random, scene))
    return scene, replace(scene, placed=(first, new))


def _extended(sprites: SpriteSet, random: np.random.Generator) -> tuple[Scene, Scene]:
    pair = draw_scene(sprites.vocabulary, random, kind="pair")
    row = int(random.integers(2, 4))
    there = Placed(index=pair.placed[0].index, row=row, column=CELLS // 2, cells=TOGETHER_CELLS)
    # In the rightmost square of the result, what is there lies in the left half.
    wanted = (
        replace(there, column=0),
        replace(there, index=pair.placed[1].index, column=CELLS // 2 + 1),
    )
    before = replace(pair, kind="single", placed=(there,), relation=None)
    return before, replace(pair, placed=wanted, relation="left of")


def _recoloured(sprites: SpriteSet, random: np.random.Generator) -> tuple[Scene, Scene]:
    scene = draw_scene(sprites.vocabulary, random, kind=str(random.choice(["single", "pair"])))
    others = [name for name in sprites.vocabulary.backgrounds if name != scene.background]
    return scene, replace(scene, background=str(random.choice(others)))


def _restyled(sprites: SpriteSet, random: np.random.Generator) -> tuple[Scene, Scene]:
    scene = draw_scene(sprites.vocabulary, random, kind=str(random.choice(["single", "pair"])))
    others = [name for name in sprites.vocabulary.styles if name != scene.style]
    return scene, replace(scene, style=str(random.choice(others)))


_WANTED: Mapping[str, Callable[[SpriteSet, np.random.Generator], tuple[Scene, Scene]]] = {
    "inpaint": _replaced,
    "outpaint": _extended,
    "background": _recoloured,
    "style": _restyled,
}
KINDS = tuple(_WANTED)


def mask_of(placed: Placed) -> Bool[np.ndarray, "h w"]:
    """Returns the square that an object covers."""
    cell = SIDE_PX // CELLS
    mask = np.zeros((SIDE_PX, SIDE_PX), bool)
    top, left, side = placed.row * cell, placed.column * cell, placed.cells * cell
    mask[top : top + side, left : left + side] = True
    return mask


def measure_inpaint(
    cases: Sequence[Case], sprites: SpriteSet, editor: Editor, detector: Detector
) -> Iterator[Outcome]:
    """Yields what came of each inpainting."""
    for case in cases:
        before, new = render(case.scene, sprites, SIDE_PX), case.wanted.placed[1]
        mask = mask_of(new)
        after = editor.inpaint(before, mask, case.prompt, case.seed)
        middle = new.row + new.cells / 2, new.column + new.cells / 2
        there = any(
            found.index == new.index
            and max(abs(a - b) for a, b in zip(found.centre, middle, strict=True)) <= 1
            for found in detector.read(after).objects
        )
        untouched = bool((after[~mask] == before[~mask]).all())
        answers = {"asked object is there": there, "untouched": untouched}
        yield Outcome(case=case, before=before, after=after, answers=answers)


def measure_outpaint(
    cases: Sequence[Case], sprites: SpriteSet, editor: Editor, detector: Detector
) -> Iterator[Outcome]:
    """Yields what came of each outpainting to the right by half a picture."""
    for case in cases:
        before = render(case.scene, sprites, SIDE_PX)
        after = editor.outpaint(before, SIDE_PX // 2, case.prompt, case.seed)
        added = [
            found.index
            for found in detector.read(after[:, -SIDE_PX:]).objects
            if found.centre[1] > CELLS / 2
        ]
        answers = {
            "asked object is there": case.wanted.placed[1].index in added,
            "any object is there": bool(added),
            "untouched": bool((after[:, :SIDE_PX] == before).all()),
        }
        yield Outcome(case=case, before=before, after=after, answers=answers)


def measure_mask_free(
    cases: Sequence[Case],
    sprites: SpriteSet,
    editor: Editor,
    detector: Detector,
    *,
    attribute: str,
    keep: Sequence[int],
) -> Iterator[Mapping[int, Outcome]]:
    """Yields for each edit what came of it after each of the iterations.

    Args:
        cases: What to ask for.
        sprites: The artwork.
        editor: Edits.
        detector: Reads.
        attribute: What is to change: "background" or "style".
        keep: The iterations.
    """
    for case in cases:
        before = render(case.scene, sprites, SIDE_PX)
        taken = editor.edit(before, case.prompt, keep, case.seed)
        yield {
            iteration: Outcome(
                case=case,
                before=before,
                after=taken[iteration],
                answers=_answers(case.wanted, detector.read(taken[iteration]), attribute),
            )
            for iteration in keep
        }


def _answers(wanted: Scene, reading: Reading, attribute: str) -> dict[str, bool]:
    objects = {found.index for found in reading.objects}
    return {
        f"{attribute} as asked": getattr(reading, attribute) == getattr(wanted, attribute),
        "objects recognised": objects == {placed.index for placed in wanted.placed},
    }


def shares_of(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Returns the share that is right, by question."""
    questions = outcomes[0].answers
    return {
        question: float(np.mean([outcome.answers[question] for outcome in outcomes]))
        for question in questions
    }
