"""Conditional entropy of tokens: how many patterns of tokens one object has.

A base transformer has to learn by heart which tokens an object is made of. Where a token depends on
the object alone, that is one id for each cell of it; where it mixes the object with its background
or with where it stands, one for each of these. Entropy counts them in bits, before a grid of tokens
is chosen.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from training.data.scenes import Board, Placed, Scene
from training.evaluation.testbed import Testbed
from training.evaluation.tokenizers import BATCH, view_of
from training.tasks.frozen import FrozenTokenizer

_COVERED = 0.99  # alpha of every pixel of a cell that shows the object alone


@dataclass(frozen=True, kw_only=True)
class TokenEntropy:
    """Entropy of a token given object, style, size and cell, over backgrounds and positions.

    Attributes:
        samples: Scenes of each object, style and size; no entropy is above their log.
        object_bits: Mean over the tokens in which some of the object shows.
        interior_bits: Mean over the tokens that the object covers wholly; None if there are none.
    """

    samples: int
    object_bits: float
    interior_bits: float | None


def measure_entropy(
    tokenizer: FrozenTokenizer, testbed: Testbed, *, objects: int, samples: int, seed: int
) -> TokenEntropy:
    """Measures the entropy of tokens given the object, its style and size and their cell in it.

    Args:
        tokenizer: Makes the tokens.
        testbed: The artwork.
        objects: Random objects, each in a random style and at both sizes.
        samples: Scenes of each, on random backgrounds at random positions.
        seed: Of all choices.

    Raises:
        ValueError: there are too few objects or samples, or the grid does not divide by the board.
    """
    if objects < 1 or samples < 2:
        raise ValueError(f"expected at least 1 object and 2 samples, got {objects} and {samples}")
    board, grid = testbed.board, tokenizer.config.grid
    if grid % board.cells:
        raise ValueError(
            f"expected a grid of a multiple of {board.cells} tokens, the board's cells, got {grid}"
        )
    random = np.random.default_rng(seed)
    touched: list[float] = []
    interior: list[float] = []
    for _ in range(objects):
        index = int(random.integers(len(testbed.vocabulary.objects)))
        style = str(random.choice(list(testbed.vocabulary.styles)))
        for cells in (board.alone_cells, board.together_cells):
            scenes = [_scene(testbed, random, index, style, cells) for _ in range(samples)]
            bits = _entropies(np.stack(list(_tokens(tokenizer, testbed, scenes))))
            some, whole = _coverage(testbed, scenes[0], cells * grid // board.cells)
            touched += bits[some].tolist()
            interior += bits[whole].tolist()
    return TokenEntropy(
        samples=samples,
        object_bits=float(np.mean(touched)),
        interior_bits=float(np.mean(interior)) if interior else None,
    )


def _scene(
    testbed: Testbed, random: np.random.Generator, index: int, style: str, cells: int
) -> Scene:
    row, column = (int(random.choice(_starts(testbed.board, cells))) for _ in range(2))
    return Scene(
        board=testbed.board,
        kind="single",
        placed=(Placed(index=index, row=row, column=column, cells=cells),),
        style=style,
        background=str(random.choice(list(testbed.vocabulary.backgrounds))),
    )


def _starts(board: Board, cells: int) -> tuple[int, ...]:
    if cells == board.alone_cells:
        return board.middle(cells)
    return (*board.starts[0], *board.middle(cells), *board.starts[1])


def _tokens(
    tokenizer: FrozenTokenizer, testbed: Testbed, scenes: list[Scene]
) -> Iterator[Int[np.ndarray, "n n"]]:
    """Yields the tokens in the square of each scene's object."""
    grid = tokenizer.config.grid
    each = grid // testbed.board.cells
    for start in range(0, len(scenes), BATCH):
        batch = scenes[start : start + BATCH]
        images = np.stack([view_of(scene, testbed, tokenizer.config.image_size) for scene in batch])
        for scene, ids in zip(batch, np.asarray(tokenizer.ids(images)), strict=True):
            (placed,) = scene.placed
            top, left, side = (n * each for n in (placed.row, placed.column, placed.cells))
            yield ids.reshape(grid, grid)[top : top + side, left : left + side]


def _entropies(tokens: Int[np.ndarray, "S n n"]) -> Float[np.ndarray, "n n"]:
    """Returns the entropy in bits of each token over the samples."""
    bits = np.zeros(tokens.shape[1:])
    for at in np.ndindex(bits.shape):
        counts = np.unique(tokens[:, at[0], at[1]], return_counts=True)[1]
        share = counts / counts.sum()
        bits[at] = -np.sum(share * np.log2(share))
    return bits


def _coverage(
    testbed: Testbed, scene: Scene, tokens: int
) -> tuple[Bool[np.ndarray, "n n"], Bool[np.ndarray, "n n"]]:
    """Says which tokens of an object's square show some of it, and which show nothing else."""
    (placed,) = scene.placed
    size = placed.cells * testbed.side_px // testbed.board.cells
    name = testbed.sprites.vocabulary.objects[placed.index].sprites[scene.style]
    alpha = testbed.sprites.scaled(name, size)[..., 3]
    blocks = alpha.reshape(tokens, size // tokens, tokens, size // tokens)
    return blocks.max(axis=(1, 3)) > 1 - _COVERED, blocks.min(axis=(1, 3)) >= _COVERED
