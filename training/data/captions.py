"""Says in plain English what a scene shows; true by construction."""

from collections.abc import Iterator

import numpy as np

from training.data.scenes import Scene, draw_training_scene
from training.data.sprites import SceneObject, Vocabulary

_COUNTS = {2: ("two", "2"), 3: ("three", "3"), 4: ("four", "4")}
_RELATIONS = {
    "left of": ("to the left of", "left of", "on the left of"),
    "right of": ("to the right of", "right of", "on the right of"),
    "above": ("above", "on top of", "over"),
    "below": ("below", "under", "underneath"),
}
PLACES = {  # of the first object and of the second
    "left of": ("on the left", "on the right"),
    "right of": ("on the right", "on the left"),
    "above": ("at the top", "at the bottom"),
    "below": ("at the bottom", "at the top"),
}
_READING_ORDER = ("left of", "above")
_SAYS_RELATION = 0.85  # share of pairs whose caption says how they stand
_SAYS_PLACES = 0.4  # share of these that name each object's own place instead, as one reads
_SAYS_STYLE = 0.9
_SAYS_BACKGROUND = 0.9

_STYLED = (
    "{things} in {style} style",
    "a {style} picture of {things}",
    "a {style} image of {things}",
    "{things}, {style} style",
    "a {style} emoji of {things}",
)
_ON_BACKGROUND = (
    "{picture} on a {colour} background",
    "{picture} against a {colour} background",
    "{picture} on {colour}",
    "{picture}, {colour} background",
    "{picture} with a {colour} background",
)


def describe(scene: Scene, vocabulary: Vocabulary, random: np.random.Generator) -> str:
    """Words a caption for a scene, in one of many ways.

    Args:
        scene: What to describe.
        vocabulary: The names of things.
        random: Chooses the wording, and what is left out: one caption in ten is silent on the
            style, one in ten on the background, some pairs on how they stand.
    """
    return _tell(
        scene, vocabulary, random, _SAYS_RELATION, _SAYS_PLACES, _SAYS_STYLE, _SAYS_BACKGROUND
    )


def describe_fully(
    scene: Scene, vocabulary: Vocabulary, random: np.random.Generator, *, by_place: bool
) -> str:
    """Words a caption as `describe` does, leaving out neither style, background nor relation.

    Args:
        scene: What to describe.
        vocabulary: The names of things.
        random: Chooses the wording.
        by_place: Whether a pair's objects are told by the place of each, not by how they stand.
    """
    return _tell(scene, vocabulary, random, 1.0, float(by_place), 1.0, 1.0)


def _tell(
    scene: Scene,
    vocabulary: Vocabulary,
    random: np.random.Generator,
    says_relation: float,
    says_places: float,
    says_style: float,
    says_background: float,
) -> str:
    """Words a caption, each part said with that probability."""
    objects = [vocabulary.objects[placed.index] for placed in scene.placed]
    caption = _things(scene, objects, random, says_relation, says_places)
    if random.random() < says_style:
        template = str(random.choice(_STYLED))
        caption = template.format(things=caption, style=vocabulary.styles[scene.style])
    if random.random() < says_background:
        template = str(random.choice(_ON_BACKGROUND))
        caption = template.format(picture=caption, colour=scene.background)
    return caption


def training_captions(vocabulary: Vocabulary, seed: int) -> Iterator[str]:
    """Yields captions of training scenes without end, the same ones for the same seed."""
    index = 0
    while True:
        random = np.random.default_rng([seed, index])
        yield describe(draw_training_scene(vocabulary, random), vocabulary, random)
        index += 1


def _things(
    scene: Scene,
    objects: list[SceneObject],
    random: np.random.Generator,
    says_relation: float,
    says_places: float,
) -> str:
    names = [with_article(thing) for thing in objects]
    if scene.kind == "count":
        return f"{random.choice(_COUNTS[len(objects)])} {objects[0].plural}"
    if scene.relation is not None and random.random() < says_relation:
        if random.random() < says_places:
            placed = list(zip(names, PLACES[scene.relation], strict=True))
            if scene.relation not in _READING_ORDER:
                placed.reverse()
            return " and ".join(f"{name} {place}" for name, place in placed)
        return f"{names[0]} {random.choice(_RELATIONS[scene.relation])} {names[1]}"
    random.shuffle(names)
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def with_article(thing: SceneObject) -> str:
    """Returns what a caption calls one of a thing: "an owl"."""
    article = "an" if thing.singular[0].lower() in "aeiou" else "a"
    return f"{article} {thing.singular}"
