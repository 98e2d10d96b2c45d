"""Captions for the text encoder alone: the same scene told twice, in different words.

    a fox above a key on a green background. a key under a fox in 3D style
    at the bottom a key, at the top a fox. a fox above a key

A masked word of one telling follows from the other only for a reader who knows which object stands
where, and that is what the base transformer needs to read off the embeddings.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from training.data.captions import PLACES, describe, with_article
from training.data.scenes import Scene, draw_training_scene
from training.data.sprites import Vocabulary

_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_TOLD_TWICE = 0.9  # share of texts; single captions are what the services send
_BY_PLACE = 0.6  # share of second tellings of a pair that name each object's own place
_TURNED = 0.7  # share of second tellings of a pair that start from its other object


def retold_captions(vocabulary: Vocabulary, seed: int) -> Iterator[str]:
    """Yields texts about training scenes without end, the same ones for the same seed.

    Args:
        vocabulary: What the scenes are drawn from.
        seed: Of the scenes and their wording.

    Yields:
        One caption, or two of one scene with a full stop between them.
    """
    index = 0
    while True:
        random = np.random.default_rng(
            [seed, index, 1]
        )  # another stream than the pictures' captions
        scene = draw_training_scene(vocabulary, random)
        text = describe(scene, vocabulary, random)
        if random.random() < _TOLD_TWICE:
            if scene.relation is not None and random.random() < _BY_PLACE:
                again = told_by_place(scene, vocabulary, random)
            else:
                again = describe(
                    turned(scene) if random.random() < _TURNED else scene, vocabulary, random
                )
            text = f"{text}. {again}" if random.random() < 0.5 else f"{again}. {text}"
        yield text
        index += 1


def turned(scene: Scene) -> Scene:
    """Returns the same scene told from its other object: a above b is b below a.

    A scene that shows no relation comes back as it is.
    """
    if scene.relation is None:
        return scene
    return replace(scene, placed=scene.placed[::-1], relation=_OPPOSITE[scene.relation])


def told_by_place(scene: Scene, vocabulary: Vocabulary, random: np.random.Generator) -> str:
    """Words a pair by where each object is, in either order: "on the left a fox, ...".

    Args:
        scene: A pair that shows a relation.
        vocabulary: The names of things.
        random: Chooses the order and the wording.
    """
    assert scene.relation is not None
    places = PLACES[scene.relation]
    parts = [
        (place, with_article(vocabulary.objects[placed.index]))
        for place, placed in zip(places, scene.placed, strict=True)
    ]
    random.shuffle(parts)
    wording = str(random.choice(("{place} {thing}", "{thing} {place}")))
    return ", ".join(wording.format(place=place, thing=thing) for place, thing in parts)
