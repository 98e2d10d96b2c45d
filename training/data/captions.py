"""Captions of scenes in plain English, with what each noun of them says as labels.

A caption is true by construction. Its labels train the text encoder's noun heads and measure a
linear probe: what the embedding of a noun must tell the base transformer is which object it is,
where it stands, how many there are, and in which style and on which background.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from training.data.scenes import Board, Scene, draw_training_scene
from training.data.sprites import SceneObject, Vocabulary

LABELS = ("object", "place", "count", "style", "background")
_COUNTS = {2: ("two", "2"), 3: ("three", "3"), 4: ("four", "4")}
_RELATIONS = {
    "left of": ("to the left of", "left of", "on the left of"),
    "right of": ("to the right of", "right of", "on the right of"),
    "above": ("above", "on top of", "over"),
    "below": ("below", "under", "underneath"),
}
_PLACES = {  # of the first object and of the second
    "left of": ("left", "right"),
    "right of": ("right", "left"),
    "above": ("top", "bottom"),
    "below": ("bottom", "top"),
}
_AT = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
}
_BESIDE = {"left": "to its left", "right": "to its right", "top": "above", "bottom": "below"}
_SAYS_RELATION = 0.85  # share of pairs whose caption says how they stand
_SAYS_PLACES = 0.5  # share of these that name each object's own place instead
_SAYS_STYLE = 0.9
_SAYS_BACKGROUND = 0.9

_STYLED = (
    "{things} in {style} style",
    "{a_style} picture of {things}",
    "{a_style} image of {things}",
    "{things}, {style} style",
    "{a_style} emoji of {things}",
)
_ON_BACKGROUND = (
    "{picture} on {a_colour} background",
    "{picture} against {a_colour} background",
    "{picture} on {colour}",
    "{picture}, {colour} background",
    "{picture} with {a_colour} background",
)
_BY_PLACE = (
    "{first} {at_first} and {second} {at_second}",
    "{at_first} {first} and {at_second} {second}",
    "{first} {at_first}, {second} {beside_second}",
    "{at_first} {first}, {at_second} {second}",
)
_MARK = 0xE000  # private-use characters mark the end of a noun until its word is known


@dataclass(frozen=True, kw_only=True)
class Noun:
    """A noun of a caption and what the caption says of it.

    Attributes:
        word: Position of its last word among the caption's words, which spaces part.
        labels: A class for each of LABELS; the last class of a label is "not said".
    """

    word: int
    labels: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A text about a picture.

    Attributes:
        text: The words.
        nouns: The objects it names, in the text's order; empty where nothing is known of them.
    """

    text: str
    nouns: tuple[Noun, ...] = ()


def label_classes(vocabulary: Vocabulary) -> dict[str, int]:
    """Returns how many classes each of LABELS has, "not said" included."""
    return {
        "object": len(vocabulary.objects) + 1,
        "place": len(_AT) + 1,
        "count": len(_COUNTS) + 2,
        "style": len(vocabulary.styles) + 1,
        "background": len(vocabulary.backgrounds) + 1,
    }


def caption_of(scene: Scene, vocabulary: Vocabulary, random: np.random.Generator) -> Caption:
    """Words a caption for a scene, in one of many ways.

    Args:
        scene: What to describe.
        vocabulary: The names of objects.
        random: Chooses the wording, and what is left out: one caption in ten is silent on the
            style, one in ten on the background, some pairs on how they stand.
    """
    places = bool(random.random() < _SAYS_PLACES)
    return _Wording(
        scene,
        vocabulary,
        random,
        relation=bool(random.random() < _SAYS_RELATION),
        by_place=places,
        style=bool(random.random() < _SAYS_STYLE),
        background=bool(random.random() < _SAYS_BACKGROUND),
    ).caption()


def full_caption(
    scene: Scene, vocabulary: Vocabulary, random: np.random.Generator, *, by_place: bool
) -> Caption:
    """Words a caption as `caption_of` does, leaving out neither style, background nor relation.

    Args:
        scene: What to describe.
        vocabulary: The names of objects.
        random: Chooses the wording.
        by_place: Whether a pair's caption names the place of each object, not how they stand.
    """
    return _Wording(
        scene, vocabulary, random, relation=True, by_place=by_place, style=True, background=True
    ).caption()


def training_captions(vocabulary: Vocabulary, board: Board, seed: int) -> Iterator[Caption]:
    """Yields captions of training scenes without end, the same ones for the same seed."""
    index = 0
    while True:
        random = np.random.default_rng([seed, index])
        yield caption_of(draw_training_scene(vocabulary, board, random), vocabulary, random)
        index += 1


@dataclass(frozen=True)
class _Wording:
    """One scene, and which of its facts the caption says."""

    scene: Scene
    vocabulary: Vocabulary
    random: np.random.Generator
    relation: bool
    by_place: bool
    style: bool
    background: bool

    def caption(self) -> Caption:
        marked = self._things()
        scene, random = self.scene, self.random
        if self.style:
            style = self.vocabulary.styles[scene.style]
            marked = str(random.choice(_STYLED)).format(
                things=marked, style=style, a_style=with_article(style)
            )
        if self.background:
            marked = str(random.choice(_ON_BACKGROUND)).format(
                picture=marked, colour=scene.background, a_colour=with_article(scene.background)
            )
        nouns = []
        for word, text in enumerate(marked.split(" ")):
            for at in range(len(scene.placed)):
                if chr(_MARK + at) in text:
                    nouns.append(Noun(word=word, labels=self._labels(at)))
        for at in range(len(scene.placed)):
            marked = marked.replace(chr(_MARK + at), "")
        return Caption(text=marked, nouns=tuple(nouns))

    def _things(self) -> str:
        """Returns the words for the objects, each noun with its mark behind it."""
        scene, random = self.scene, self.random
        objects = [self.vocabulary.objects[placed.index] for placed in scene.placed]
        if scene.kind == "count":
            return f"{random.choice(_COUNTS[len(objects)])} {objects[0].plural}{chr(_MARK)}"
        names = [f"{name_of(thing)}{chr(_MARK + at)}" for at, thing in enumerate(objects)]
        if not self._places_said:
            random.shuffle(names)
            return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        assert scene.relation is not None
        if not self.by_place:
            return f"{names[0]} {random.choice(_RELATIONS[scene.relation])} {names[1]}"
        order = [0, 1] if random.random() < 0.5 else [1, 0]
        (first, second), places = order, _PLACES[scene.relation]
        return str(random.choice(_BY_PLACE)).format(
            first=names[first],
            second=names[second],
            at_first=_AT[places[first]],
            at_second=_AT[places[second]],
            beside_second=_BESIDE[places[second]],
        )

    @property
    def _places_said(self) -> bool:
        return self.scene.relation is not None and self.relation

    def _labels(self, at: int) -> tuple[int, ...]:
        scene, vocabulary = self.scene, self.vocabulary
        place, styles, colours = len(_AT), list(vocabulary.styles), list(vocabulary.backgrounds)
        if self._places_said and scene.relation is not None:
            place = list(_AT).index(_PLACES[scene.relation][at])
        return (
            scene.placed[at].index,
            place,
            len(scene.placed) - 1 if scene.kind == "count" else 0,
            styles.index(scene.style) if self.style else len(styles),
            colours.index(scene.background) if self.background else len(colours),
        )


def name_of(thing: SceneObject) -> str:
    """Returns what a caption calls one of an object: "an owl"."""
    return with_article(thing.singular)


def with_article(words: str) -> str:
    """Puts the indefinite article before words: "an orange", "a unicorn"."""
    vowel = words[0].lower() in "aeiou" and not words.startswith("uni")
    return f"{'an' if vowel else 'a'} {words}"
