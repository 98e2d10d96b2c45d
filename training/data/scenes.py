"""Composes scenes: which objects, where, on what; and draws them.

A scene is laid out on a square board of cells: an object that is alone covers more of them than one
of several, and every object starts at a cell. A cell is one low-resolution token and four
high-resolution ones, so one object has the same tokens wherever it stands.

On the larger board each place has one first cell. Were there two along each axis, a transformer
would have to learn every object in four times as many places, and to guess one of the four before
the first token of an object is known.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from training.data.sprites import SpriteSet, Vocabulary

RELATIONS = ("left of", "right of", "above", "below")

_SHARES = {"single": 0.35, "pair": 0.40, "count": 0.15, "several": 0.10}


@dataclass(frozen=True, kw_only=True)
class Board:
    """The grid that scenes are laid out on.

    Attributes:
        cells: Cells along a side of the board.
        alone_cells: Cells along a side of an object that is alone.
        together_cells: Cells along a side of each of several objects.
        offsets: Neighbouring cells along each axis that an object may start at in each place.
    """

    cells: int
    alone_cells: int
    together_cells: int
    offsets: int

    def __post_init__(self) -> None:
        if not 0 < 2 * self.together_cells < self.cells or not 0 < self.alone_cells < self.cells:
            raise ValueError(
                f"a board of {self.cells} cells must hold two objects of {self.together_cells} "
                f"cells side by side with a cell to spare, and one of {self.alone_cells}"
            )

    @property
    def starts(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """First cells that an object may have in the first and in the second half of an axis."""
        half = self.cells // 2
        first = self._from((half - self.together_cells) // 2)
        return first, tuple(half + start for start in first)

    def middle(self, cells: int) -> tuple[int, ...]:
        """Returns the first cells that an object in the middle of an axis may have."""
        return self._from((self.cells - cells) // 2)

    def _from(self, first: int) -> tuple[int, ...]:
        return tuple(range(first, first + self.offsets))


BOARD_8 = Board(cells=8, alone_cells=5, together_cells=3, offsets=2)
BOARD_16 = Board(cells=16, alone_cells=8, together_cells=6, offsets=1)


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
        board: The grid that the objects lie on.
        kind: "single", "pair" (two different), "count" (two to four of one) or "several" (three or
            four different).
        placed: The objects; a caption names them in this order.
        style: Of the artwork, a key of the vocabulary's styles.
        background: Name of a colour.
        relation: Of the first object to the second, for a pair laid out to show one.
    """

    board: Board
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
    vocabulary: Vocabulary,
    board: Board,
    random: np.random.Generator,
    *,
    kind: str | None = None,
) -> Scene:
    """Draws a scene at random, held out or not.

    Args:
        vocabulary: Objects, styles and backgrounds to draw from.
        board: Grid to lay the objects out on.
        random: Source of chance.
        kind: Which kind; by default one at random in the training mixture's shares.
    """
    if kind is None:
        kind = str(random.choice(list(_SHARES), p=list(_SHARES.values())))
    relation = None
    if kind == "single":
        placed: tuple[Placed, ...] = (_alone(vocabulary, board, random),)
    elif kind == "pair":
        relation = str(random.choice(RELATIONS))
        placed = _pair(vocabulary, board, random, relation)
    else:
        count = int(random.integers(2 if kind == "count" else 3, 5))
        things = random.choice(len(vocabulary.objects), count, replace=False)
        if kind == "count":
            things[:] = things[0]
        quarters = random.permutation([(r, c) for r in (0, 1) for c in (0, 1)])[:count]
        placed = tuple(
            _together(
                int(thing), board, *(int(random.choice(board.starts[half])) for half in quarter)
            )
            for thing, quarter in zip(things, quarters, strict=True)
        )
    return Scene(
        board=board,
        kind=kind,
        placed=placed,
        style=str(random.choice(list(vocabulary.styles))),
        background=str(random.choice(list(vocabulary.backgrounds))),
        relation=relation,
    )


def draw_training_scene(vocabulary: Vocabulary, board: Board, random: np.random.Generator) -> Scene:
    """Draws scenes of the training mixture until one is not held out."""
    while True:
        scene = draw_scene(vocabulary, board, random)
        if not scene_is_held_out(scene, vocabulary):
            return scene


def _alone(vocabulary: Vocabulary, board: Board, random: np.random.Generator) -> Placed:
    row, column = (int(random.choice(board.middle(board.alone_cells))) for _ in range(2))
    thing = int(random.integers(len(vocabulary.objects)))
    return Placed(index=thing, row=row, column=column, cells=board.alone_cells)


def _together(thing: int, board: Board, row: int, column: int) -> Placed:
    return Placed(index=thing, row=row, column=column, cells=board.together_cells)


def _pair(
    vocabulary: Vocabulary, board: Board, random: np.random.Generator, relation: str
) -> tuple[Placed, Placed]:
    """Lays two different objects out so that the first stands in that relation to the second."""
    first, second = (int(i) for i in random.choice(len(vocabulary.objects), 2, replace=False))
    near, far = (int(random.choice(starts)) for starts in board.starts)
    along = (near, far) if relation in ("left of", "above") else (far, near)
    across = int(random.choice(board.middle(board.together_cells)))
    places = [(across, at) if relation in ("left of", "right of") else (at, across) for at in along]
    return _together(first, board, *places[0]), _together(second, board, *places[1])


def render(scene: Scene, sprites: SpriteSet, side_px: int) -> UInt8[np.ndarray, "h w 3"]:
    """Draws a scene.

    Args:
        scene: What to show.
        sprites: The artwork.
        side_px: Side of the picture, a multiple of the board's cells.
    """
    if side_px % scene.board.cells:
        raise ValueError(f"side_px must be a multiple of {scene.board.cells}, got {side_px}")
    cell = side_px // scene.board.cells
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
