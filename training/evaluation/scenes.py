"""Prompts of scenes in groups, the pictures made of them read back, and what came out right."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from training.data.captions import full_caption
from training.data.scenes import Board, Scene, draw_scene, scene_is_held_out
from training.data.sprites import Vocabulary
from training.evaluation.detector import Detector, Reading
from training.evaluation.shares import Share, share_of


@dataclass(frozen=True)
class Group:
    """Prompts that are measured together.

    Attributes:
        kind: Of their scenes.
        held_out: Whether no training scene has such a combination of objects.
        by_place: Whether they say "a fox on the left and a key on the right", in either order, not
            "a fox left of a key".
    """

    kind: str
    held_out: bool = False
    by_place: bool = False


_TRAINING_LIKE: Mapping[str, Group] = {
    "single": Group("single"),
    "pair by relation": Group("pair"),
    "pair by place": Group("pair", by_place=True),
    "count": Group("count"),
    "several": Group("several"),
}
_HELD_OUT: Mapping[str, Group] = {
    f"held-out {name}": Group(group.kind, held_out=True, by_place=group.by_place)
    for name, group in _TRAINING_LIKE.items()
    if name != "single"  # an object alone is never held out
}
GROUPS: Mapping[str, Group] = {**_TRAINING_LIKE, **_HELD_OUT}
QUESTIONS = ("objects", "counts", "relation", "background", "style", "all")


@dataclass(frozen=True, kw_only=True)
class PromptCase:
    """One picture to generate.

    Attributes:
        group: One of GROUPS.
        scene: What it must show; where things stand matters only as far as the prompt says.
        prompt: The words sent.
        seed: Of the picture.
    """

    group: str
    scene: Scene
    prompt: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Score:
    """What is right about one picture; None where nothing was asked.

    Attributes:
        objects: Exactly the objects asked for are there, however many of each.
        counts: As many things are there as were asked for; unrecognisable ones count.
        relation: The first object stands to the second as asked.
        background: It has the colour asked for.
        style: All objects are of the style asked for.
        all: All of that, and of each object as many as asked.
    """

    objects: bool
    counts: bool
    relation: bool | None
    background: bool
    style: bool
    all: bool


@dataclass(frozen=True, kw_only=True)
class ScoredImage:
    """A picture, the case it was generated for, what was read in it and its score."""

    case: PromptCase
    picture: UInt8[np.ndarray, "h w 3"]
    reading: Reading
    score: Score


def draw_prompt_cases(
    vocabulary: Vocabulary,
    board: Board,
    per_group: int,
    *,
    seed: int,
    groups: Sequence[str] = tuple(GROUPS),
) -> list[PromptCase]:
    """Draws what to ask for, the same for the same seed.

    Args:
        vocabulary: What scenes are made of.
        board: Grid that they are laid out on.
        per_group: Pictures a group.
        seed: Of the scenes, their wording and the pictures' seeds.
        groups: Which of GROUPS.

    Raises:
        ValueError: per_group is below 1, or a group is unknown or cannot be drawn.
    """
    if per_group < 1:
        raise ValueError(f"expected at least 1 prompt a group, got {per_group}")
    cases = []
    for name in groups:
        if name not in GROUPS:
            raise ValueError(f"unknown group {name!r}: expected one of {', '.join(GROUPS)}")
        group, random = GROUPS[name], np.random.default_rng([seed, list(GROUPS).index(name)])
        for index in range(per_group):
            scene = _draw(vocabulary, board, random, group)
            caption = full_caption(scene, vocabulary, random, by_place=group.by_place)
            cases.append(
                PromptCase(
                    group=name, scene=scene, prompt=caption.text, seed=seed * 1_000_003 + index
                )
            )
    return cases


def _draw(vocabulary: Vocabulary, board: Board, random: np.random.Generator, group: Group) -> Scene:
    for _ in range(10_000):
        scene = draw_scene(vocabulary, board, random, kind=group.kind)
        if scene_is_held_out(scene, vocabulary) == group.held_out:
            return scene
    sort = "held-out" if group.held_out else "training"
    raise ValueError(
        f"no {sort} scene of kind {group.kind!r} in 10,000 draws: "
        "the vocabulary has too few objects"
    )


def score(scene: Scene, reading: Reading) -> Score:
    """Compares what was asked with what was read."""
    asked = Counter(placed.index for placed in scene.placed)
    found = Counter(detection.index for detection in reading.objects)
    objects = set(asked) == set(found)
    counts = len(scene.placed) == len(reading.objects) + reading.unrecognised
    relation = None if scene.relation is None else _relation_holds(scene, reading)
    background = reading.background == scene.background
    style = reading.style == scene.style
    return Score(
        objects=objects,
        counts=counts,
        relation=relation,
        background=background,
        style=style,
        all=asked == found and counts and relation is not False and background and style,
    )


def _relation_holds(scene: Scene, reading: Reading) -> bool:
    places = []
    for placed in scene.placed:
        of_it = [each.centre for each in reading.objects if each.index == placed.index]
        if len(of_it) != 1:
            return False
        places.append(of_it[0])
    down = places[1][0] - places[0][0]
    right = places[1][1] - places[0][1]
    if scene.relation in ("left of", "right of"):
        along, across = (right if scene.relation == "left of" else -right), down
    else:
        along, across = (down if scene.relation == "above" else -down), right
    return along > abs(across)


def score_all(
    cases: Sequence[PromptCase],
    pictures: Iterable[UInt8[np.ndarray, "h w 3"]],
    detector: Detector,
    *,
    worst_distance: float | None = None,
) -> Iterator[ScoredImage]:
    """Yields the score of each picture as it comes.

    Args:
        cases: What was asked for.
        pictures: One a case, in the same order.
        detector: Reads the pictures.
        worst_distance: Of the detector, in place of its own if not None.
    """
    for case, picture in zip(cases, pictures, strict=True):
        reading = detector.read(picture, worst_distance=worst_distance)
        yield ScoredImage(
            case=case, picture=picture, reading=reading, score=score(case.scene, reading)
        )


def shares_by_group(scored: Sequence[ScoredImage]) -> dict[str, dict[str, Share | None]]:
    """Returns for each group the share of pictures that is right, by question.

    Returns:
        By group, in the order of GROUPS, then "all training-like" and "all held-out": a share for
        every one of QUESTIONS, None where it was never asked.
    """
    members = {name: [one for one in scored if one.case.group == name] for name in GROUPS}
    for name, groups in (("all training-like", _TRAINING_LIKE), ("all held-out", _HELD_OUT)):
        members[name] = [one for one in scored if one.case.group in groups]
    return {
        name: {question: _share(each, question) for question in QUESTIONS}
        for name, each in members.items()
        if each
    }


def _share(scored: Sequence[ScoredImage], question: str) -> Share | None:
    answers: list[bool | None] = [getattr(one.score, question) for one in scored]
    given = [answer for answer in answers if answer is not None]
    return share_of(given) if given else None
