"""Tests for the texts that tell one scene twice."""

from itertools import islice

import numpy as np
import pytest

from training.data.retellings import retold_captions, told_by_place, turned
from training.data.scenes import Placed, Scene, pair_is_held_out
from training.data.sprites import SceneObject, Vocabulary

NAMES = ("fox", "key", "car", "sun", "owl", "bus", "hat", "pig")


def small_vocabulary() -> Vocabulary:
    """A vocabulary of a few objects."""
    objects = tuple(
        SceneObject(name=name, singular=name, plural=name + "s", sprites={"3d": "", "flat": ""})
        for name in NAMES
    )
    return Vocabulary(
        objects=objects,
        styles={"3d": "3D", "flat": "flat cartoon"},
        backgrounds={"red": (255, 0, 0), "green": (0, 255, 0)},
    )


def test_a_turned_pair_names_the_other_object_first_and_the_opposite_relation() -> None:
    first, second = (Placed(index=i, row=i, column=3, cells=3) for i in range(2))
    scene = Scene(
        kind="pair", placed=(first, second), style="3d", background="red", relation="above"
    )

    told = turned(scene)

    assert told.placed == (second, first)
    assert told.relation == "below"
    assert turned(told) == scene


def test_nine_in_ten_texts_tell_their_scene_twice() -> None:
    texts = list(islice(retold_captions(small_vocabulary(), 3), 400))

    assert 0.85 < np.mean([". " in text for text in texts]) < 0.95


@pytest.mark.parametrize(
    ("relation", "first", "second"),
    [
        ("left of", "on the left", "on the right"),
        ("right of", "on the right", "on the left"),
        ("above", "at the top", "at the bottom"),
        ("below", "at the bottom", "at the top"),
    ],
)
def test_a_pair_told_by_place_says_where_each_object_is(
    relation: str, first: str, second: str
) -> None:
    placed = tuple(Placed(index=i, row=i, column=3, cells=3) for i in (0, 4))
    scene = Scene(kind="pair", placed=placed, style="3d", background="red", relation=relation)
    random = np.random.default_rng(0)
    told = {told_by_place(scene, small_vocabulary(), random) for _ in range(50)}

    assert told == {
        f"{first} a fox, {second} an owl",
        f"{second} an owl, {first} a fox",
        f"a fox {first}, an owl {second}",
        f"an owl {second}, a fox {first}",
    }


def test_the_same_seed_gives_the_same_texts_and_another_seed_others() -> None:
    vocabulary = small_vocabulary()
    texts = [list(islice(retold_captions(vocabulary, seed), 20)) for seed in (1, 1, 2)]

    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_no_text_names_a_held_out_pair() -> None:
    held_out = [(a, b) for a in NAMES for b in NAMES if a < b and pair_is_held_out(a, b)]
    assert held_out, "the names of this test must include a held-out pair"

    for text in islice(retold_captions(small_vocabulary(), 0), 300):
        assert not any(a in text and b in text for a, b in held_out)
