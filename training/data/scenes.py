"""Composes scenes: which objects, where, on what; and draws them.

A scene is laid out on a board of 8 x 8 cells. One object covers 5 x 5 of them, each of several
3 x 3, and every object starts at a cell: on the demo's grids a cell is one low-resolution token and
four high-resolution ones.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from training.data.sprites import SpriteSet, Vocabulary

CELLS = 8
ALONE_CELLS = 5
TOGETHER_CELLS = 3
RELATIONS = ("left of", "right of", "above", "below")

_SHARES = {"single": 0.35, "pair": 0.40, "count": 0.15, "several": 0.10}
_NEAR, _FAR = (0, 1), (4, 5)  # first cells of an object in the first and the second half


@dataclass(frozen=True, kw_only=True)
class Placed:
    """An object on the board.

    Attributes:
        index: Of the object in the vocabulary.
        row: First cell it covers, from the top.
        column: First cell it covers, from the left.
        cells: Cells it covers along a side.
    """

    index: int
    row: int
    column: int
    cells: int


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a picture shows.

    Attributes:
        kind: "single", "pair" (two different), "count" (two to four of one) or "several" (three or
            four different).
        placed: The objects; a caption names them in this order.
        style: Of the artwork, a key of the vocabulary's styles.
        background: Name of a colour.
        relation: Of the first object to the second, for a pair laid out to show one.
    """

    kind: str
    placed: tuple[Placed, ...]
    style: str
    background: str
    relation: str | None = None


def pair_is_held_out(first: str, second: str) -> bool:
    """Says whether two objects never share a training scene, in either order."""
    return _tenth("muse-pair:" + "|".join(sorted((first, second))))


def count_is_held_out(name: str, count: int) -> bool:
    """Says whether no training scene shows that many of one object; one alone is never held out."""
    return count >= 2 and _tenth(f"muse-count:{name}|{count}")


def scene_is_held_out(scene: Scene, vocabulary: Vocabulary) -> bool:
    """Says whether the scene shows a held-out pair or count."""
    names = [vocabulary.objects[placed.index].name for placed in scene.placed]
    different = sorted(set(names))
    pairs = [(a, b) for at, a in enumerate(different) for b in different[at + 1 :]]
    return any(pair_is_held_out(*pair) for pair in pairs) or any(
        count_is_held_out(name, names.count(name)) for name in different
    )


def _tenth(text: str) -> bool:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % 10 == 0


def draw_scene(
    vocabulary: Vocabulary, random: np.random.Generator, *, kind: str | None = None
) -> Scene:
    """Draws a scene at random, held out or not.

    Args:
        vocabulary: What to draw from.
        random: Where chance comes from.
        kind: Which kind; by default one at random in the training mixture's shares.
    """
    if kind is None:
        kind = str(random.choice(list(_SHARES), p=list(_SHARES.values())))
    relation = None
    if kind == "single":
        placed: tuple[Placed, ...] = (_alone(vocabulary, random),)
    elif kind == "pair":
        relation = str(random.choice(RELATIONS))
        placed = _pair(vocabulary, random, relation)
    else:
        count = int(random.integers(2 if kind == "count" else 3, 5))
        things = random.choice(len(vocabulary.objects), count, replace=False)
        if kind == "count":
            things[:] = things[0]
        quarters = random.permutation([(r, c) for r in (0, 1) for c in (0, 1)])[:count]
        placed = tuple(
            _together(int(thing), *(int(random.choice((_NEAR, _FAR)[half])) for half in quarter))
            for thing, quarter in zip(things, quarters, strict=True)
        )
    return Scene(
        kind=kind,
        placed=placed,
        style=str(random.choice(list(vocabulary.styles))),
        background=str(random.choice(list(vocabulary.backgrounds))),
        relation=relation,
    )


def draw_training_scene(vocabulary: Vocabulary, random: np.random.Generator) -> Scene:
    """Draws scenes of the training mixture until one is not held out."""
    while True:
        scene = draw_scene(vocabulary, random)
        if not scene_is_held_out(scene, vocabulary):
            return scene


def _alone(vocabulary: Vocabulary, random: np.random.Generator) -> Placed:
    row, column = (int(cell) for cell in random.integers(1, 3, 2))
    thing = int(random.integers(len(vocabulary.objects)))
    return Placed(index=thing, row=row, column=column, cells=ALONE_CELLS)


def _together(thing: int, row: int, column: int) -> Placed:
    return Placed(index=thing, row=row, column=column, cells=TOGETHER_CELLS)


def _pair(
    vocabulary: Vocabulary, random: np.random.Generator, relation: str
) -> tuple[Placed, Placed]:
    """Lays two different objects out so that the first stands in that relation to the second."""
    first, second = (int(i) for i in random.choice(len(vocabulary.objects), 2, replace=False))
    near, far = int(random.choice(_NEAR)), int(random.choice(_FAR))
    along = (near, far) if relation in ("left of", "above") else (far, near)
    across = int(random.integers(2, 4))
    if relation in ("left of", "right of"):
        return _together(first, across, along[0]), _together(second, across, along[1])
    return _together(first, along[0], across), _together(second, along[1], across)


def render(scene: Scene, sprites: SpriteSet, side_px: int) -> UInt8[np.ndarray, "h w 3"]:
    """Draws a scene.

    Args:
        scene: What to show.
        sprites: The artwork.
        side_px: Side of the picture, a multiple of 8.
    """
    if side_px % CELLS:
        raise ValueError(f"side_px must be a multiple of {CELLS}, got {side_px}")
    cell = side_px // CELLS
    canvas = np.empty((side_px, side_px, 3), np.float32)
    canvas[:] = sprites.vocabulary.backgrounds[scene.background]
    for placed in scene.placed:
        size = placed.cells * cell
        name = sprites.vocabulary.objects[placed.index].sprites[scene.style]
        sprite = sprites.scaled(name, size)
        top, left = placed.row * cell, placed.column * cell
        area = canvas[top : top + size, left : left + size]
        area *= 1 - sprite[..., 3:]
        area += 255 * sprite[..., :3]
    return np.clip(np.round(canvas), 0, 255).astype(np.uint8)


def half_size(images: UInt8[np.ndarray, "*B h w 3"]) -> UInt8[np.ndarray, "*B h2 w2 3"]:
    """Halves pictures by averaging squares of four pixels: the low-resolution view of a scene."""
    *batch, height, width, channels = images.shape
    squares = images.reshape(*batch, height // 2, 2, width // 2, 2, channels)
    return np.round(squares.mean(axis=(-4, -2), dtype=np.float32)).astype(np.uint8)
