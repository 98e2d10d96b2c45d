"""Asks for scenes, reads the pictures back, and counts what came out right.

A painter turns a prompt and a seed into a picture: the running services when the system is
measured, the composer itself when the detector is: that says how far its word can be trusted.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from training.data.captions import describe_fully
from training.data.scenes import Scene, draw_scene, scene_is_held_out
from training.data.sprites import Vocabulary
from training.evaluation.detector import Detector, Reading


@dataclass(frozen=True)
class Group:
    """Prompts that are measured together.

    Attributes:
        kind: Of their scenes.
        held_out: Whether no training scene has such a combination.
        by_place: Whether they say "a fox on the left and a key on the right", not "a fox left of a
            key".
    """

    kind: str
    held_out: bool = False
    by_place: bool = False


GROUPS: Mapping[str, Group] = {
    "single": Group("single"),
    "pair": Group("pair"),
    "pair by place": Group("pair", by_place=True),
    "count": Group("count"),
    "several": Group("several"),
    "held-out pair": Group("pair", held_out=True),
    "held-out pair by place": Group("pair", held_out=True, by_place=True),
    "held-out count": Group("count", held_out=True),
}
QUESTIONS = ("objects", "counts", "relation", "background", "style", "all")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One picture asked for.

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


Painter = Callable[[Asked], UInt8[np.ndarray, "h w 3"]]


@dataclass(frozen=True, kw_only=True)
class Verdict:
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
class Judged:
    """A picture, what was asked and what came."""

    asked: Asked
    picture: UInt8[np.ndarray, "h w 3"]
    reading: Reading
    verdict: Verdict


def draw_questions(
    vocabulary: Vocabulary,
    per_group: int,
    *,
    seed: int,
    groups: Sequence[str] = tuple(GROUPS),
) -> list[Asked]:
    """Draws what to ask for, the same for the same seed.

    Args:
        vocabulary: What scenes are made of.
        per_group: Pictures a group.
        seed: Of the scenes, their wording and the pictures' seeds.
        groups: Which of GROUPS.

    Raises:
        ValueError: per_group is below 1, or a group is unknown or cannot be drawn.
    """
    if per_group < 1:
        raise ValueError(f"expected at least 1 prompt a group, got {per_group}")
    questions = []
    for group in groups:
        if group not in GROUPS:
            raise ValueError(f"unknown group {group!r}: expected one of {', '.join(GROUPS)}")
        random = np.random.default_rng([seed, list(GROUPS).index(group)])
        for index in range(per_group):
            scene = _draw(vocabulary, random, GROUPS[group])
            prompt = describe_fully(scene, vocabulary, random, by_place=GROUPS[group].by_place)
            picture_seed = seed * 1_000_003 + index
            questions.append(Asked(group=group, scene=scene, prompt=prompt, seed=picture_seed))
    return questions


def _draw(vocabulary: Vocabulary, random: np.random.Generator, group: Group) -> Scene:
    for _ in range(10_000):
        scene = draw_scene(vocabulary, random, kind=group.kind)
        if scene_is_held_out(scene, vocabulary) == group.held_out:
            return scene
    sort = "held-out" if group.held_out else "training"
    raise ValueError(
        f"no {sort} scene of kind {group.kind!r} in 10,000 draws: "
        "the vocabulary has too few objects"
    )


def judge(scene: Scene, reading: Reading) -> Verdict:
    """Compares what was asked with what was read."""
    asked = Counter(placed.index for placed in scene.placed)
    found = Counter(thing.index for thing in reading.objects)
    answers: dict[str, bool | None] = {
        "objects": set(asked) == set(found),
        "counts": len(scene.placed) == len(reading.objects) + reading.unrecognised,
        "relation": None if scene.relation is None else _relation_holds(scene, reading),
        "background": reading.background == scene.background,
        "style": reading.style == scene.style,
    }
    right = asked == found and all(answer is not False for answer in answers.values())
    return Verdict(**answers, all=right)  # type: ignore[arg-type]


def _relation_holds(scene: Scene, reading: Reading) -> bool:
    places = []
    for placed in scene.placed:
        of_it = [thing.centre for thing in reading.objects if thing.index == placed.index]
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


def judge_all(questions: Iterable[Asked], paint: Painter, detector: Detector) -> Iterator[Judged]:
    """Has each picture painted and yields the verdict on it."""
    for asked in questions:
        picture = paint(asked)
        reading = detector.read(picture)
        yield Judged(
            asked=asked, picture=picture, reading=reading, verdict=judge(asked.scene, reading)
        )


def shares(judged: Sequence[Judged]) -> dict[str, dict[str, float | int | None]]:
    """Returns for each group how many pictures it has and the share that is right, by question.

    Returns:
        By group, in the order of GROUPS, then "training-like" and "held-out" for all of either
        sort: `pictures` and every one of QUESTIONS, None where it was never asked.
    """
    sorts = {group: [one for one in judged if one.asked.group == group] for group in GROUPS}
    for name, held_out in (("training-like", False), ("held-out", True)):
        sorts[name] = [one for one in judged if GROUPS[one.asked.group].held_out == held_out]
    return {
        name: {"pictures": len(members)}
        | {question: _share(members, question) for question in QUESTIONS}
        for name, members in sorts.items()
        if members
    }


def _share(judged: Sequence[Judged], question: str) -> float | None:
    answers: list[Any] = [getattr(one.verdict, question) for one in judged]
    given = [answer for answer in answers if answer is not None]
    return float(np.mean(given)) if given else None
