"""Reads a picture back: its background, and which objects of which style stand where.

Every known sprite, drawn on the background that the picture has, is laid over a coarse copy of the
picture at each of the two sizes of its board and at every half cell. Where something fits, the
templates that fit best are compared on a finer copy, and the nearest is recognised if its distance
is below WORST_DISTANCE. A region that no template is near enough to is counted as unrecognised.
`python -m training.evaluation detector` measures how far this can be trusted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from training.data.scenes import Board
from training.data.sprites import SpriteSet
from training.evaluation.templates import COARSE_PX, FINE_PX, Fits, Templates, templates_of

# Chosen on data, on single objects of 112 px in pictures of 256 px: after JPEG at quality 20, noise
# of 27 dB or a blur of 1.5 px 99% are nearer than 0.33; of those blurred by 6 px, mixed of two
# halves, moved apart or recoloured, 99% are farther than 0.47.
WORST_DISTANCE = 0.45

_WORST_SEARCHED = 0.5  # error on the coarse copy past which a place is not looked at again
_KINDS_COMPARED = 8  # templates at a place that are compared on the fine copy
_PLACES_COMPARED = 16  # at one size, of the places that fit best
_SAME_COLOUR = 0.18  # distance in RGB of [0, 1] within which a pixel may be a named background
_FOREIGN = 0.25  # distance from the background above which a pixel shows something
_BLOB_SHARE = 0.2  # of a small object's square, above which unexplained pixels are an object
_MOST_OVERLAP = 0.15  # of the smaller square


@dataclass(frozen=True, kw_only=True)
class Detection:
    """An object in a picture.

    Attributes:
        index: Of the object in the vocabulary.
        style: Key of its style.
        row: Top of its square in cells, a multiple of a half.
        column: Left of its square in cells.
        cells: Cells along a side of its square.
        distance: From its template; 0 is exact.
        explained: How much of the picture's squared contrast with its background it accounts for.
    """

    index: int
    style: str
    row: float
    column: float
    cells: int
    distance: float
    explained: float

    @property
    def centre(self) -> tuple[float, float]:
        """Row and column of its middle, in cells."""
        return self.row + self.cells / 2, self.column + self.cells / 2

    def overlap(self, other: "Detection") -> float:
        """Returns the share of the smaller square that both cover."""
        shared = 1.0
        for mine, its in ((self.row, other.row), (self.column, other.column)):
            shared *= max(0.0, min(mine + self.cells, its + other.cells) - max(mine, its))
        return shared / min(self.cells, other.cells) ** 2


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a picture shows.

    Attributes:
        background: Name of the colour behind, none if no named one is near.
        objects: The objects, clearest first.
        unrecognised: Things of an object's size that are no known object.
    """

    background: str | None
    objects: tuple[Detection, ...]
    unrecognised: int

    @property
    def style(self) -> str | None:
        """The style that all objects share, if they do."""
        styles = {detection.style for detection in self.objects}
        return styles.pop() if len(styles) == 1 else None


class Detector:
    """Finds the sprites of one set; the reading of a picture depends on no other picture."""

    def __init__(
        self, sprites: SpriteSet, board: Board, *, worst_distance: float = WORST_DISTANCE
    ) -> None:
        """Prepares the templates.

        Args:
            sprites: The artwork to look for.
            board: Grid that the pictures' scenes are laid out on.
            worst_distance: From its template, past which a region is not recognised.

        Raises:
            ValueError: the coarse copy has no pixel for a half cell of the board.
        """
        if COARSE_PX % (2 * board.cells):
            raise ValueError(
                f"expected a board whose cells divide {COARSE_PX // 2}, got {board.cells} cells"
            )
        self.board, self._vocabulary = board, sprites.vocabulary
        self.worst_distance = worst_distance
        self._templates = [
            templates_of(sprites, board, cells)
            for cells in (board.alone_cells, board.together_cells)
        ]
        self._names = list(sprites.vocabulary.backgrounds)
        self._colours = np.array(list(sprites.vocabulary.backgrounds.values()), np.float32) / 255

    def read(
        self, picture: UInt8[np.ndarray, "h w 3"], *, worst_distance: float | None = None
    ) -> Reading:
        """Reads a picture.

        Args:
            picture: Square, of any size.
            worst_distance: In place of the detector's own, if not None.

        Raises:
            ValueError: it is not square or not RGB bytes.
        """
        pixels = _fine_copy(picture)
        limit = self.worst_distance if worst_distance is None else worst_distance
        background, colour = self._background(pixels)
        found: Sequence[Detection] = max(
            (
                _Search(pixels, colour, templates, self.board).objects(limit)
                for templates in self._templates
            ),
            key=lambda objects: sum(detection.explained for detection in objects),
        )
        foreign = np.linalg.norm(pixels - colour, axis=-1) > _FOREIGN
        return Reading(
            background=background,
            objects=tuple(found),
            unrecognised=_blobs(foreign, found, self.board),
        )

    def _background(
        self, pixels: Float[np.ndarray, "h w 3"]
    ) -> tuple[str | None, Float[np.ndarray, "3"]]:
        """Finds the named colour most pixels are close to, and the very colour they have.

        A pixel at the rim counts several times: objects seldom reach it.
        """
        distance = np.linalg.norm(pixels[:, :, None] - self._colours, axis=-1)
        nearest = np.where(distance.min(axis=-1) < _SAME_COLOUR, distance.argmin(axis=-1), -1)
        weight = np.ones(nearest.shape, np.float32)
        weight[2:-2, 2:-2] = 0.25
        votes = [float(weight[nearest == index].sum()) for index in range(len(self._names))]
        chosen = int(np.argmax(votes))
        if votes[chosen] < 0.25 * weight.sum():
            rim = pixels[weight == 1]
            return None, np.median(rim, axis=0)
        return self._names[chosen], np.median(pixels[nearest == chosen], axis=0)


@dataclass(frozen=True)
class _Search:
    """The search of one picture for objects of one size."""

    pixels: Float[np.ndarray, "h w 3"]
    background: Float[np.ndarray, "3"]
    templates: Templates
    board: Board

    @property
    def stride_px(self) -> int:
        """Fine pixels of half a cell."""
        return FINE_PX // (2 * self.board.cells)

    @cached_property
    def fits(self) -> Fits:
        """Of every template at every half cell."""
        contrast = _reduced(self.pixels) - self.background
        return self.templates.search(contrast, self.background, COARSE_PX // (2 * self.board.cells))

    def objects(self, worst_distance: float) -> list[Detection]:
        """Takes the places that explain most, one after the other, of those that are still free."""
        taken: list[Detection] = []
        compared = 0
        tried: set[int] = set()
        for place in self._places():
            if compared == _PLACES_COMPARED:
                break
            if place in tried or not _is_free(self._detection(place, 0, 0.0), taken):
                continue
            compared += 1
            around = list(self._around(place))
            tried.update(around)
            best = min(
                (self._nearest(each) for each in around), key=lambda detection: detection.distance
            )
            if best.distance < worst_distance and _is_free(best, taken):
                taken.append(best)
        return taken

    def _places(self) -> list[int]:
        """Lists the windows where some template fits, those it explains most of first."""
        error, explained = self.fits.error, self.fits.explained
        best = error.argmin(axis=-1)
        rows = np.arange(len(best))
        fitting = np.flatnonzero(error[rows, best] < _WORST_SEARCHED)
        chosen = best[fitting]
        merit = explained[fitting, chosen] * (1 - error[fitting, chosen])
        return [int(at) for at in fitting[np.argsort(-merit, kind="stable")]]

    def _around(self, place: int) -> Iterator[int]:
        """Yields a place and those half a cell from it."""
        rows = len(self.fits.error) // self.fits.columns
        row, column = divmod(place, self.fits.columns)
        for near_row in range(max(0, row - 1), min(rows, row + 2)):
            for near_column in range(max(0, column - 1), min(self.fits.columns, column + 2)):
                yield near_row * self.fits.columns + near_column

    def _nearest(self, place: int) -> Detection:
        """Compares the templates that fit best at a place with it on the fine copy."""
        errors = self.fits.error[place]
        kinds = _smallest(errors, _KINDS_COMPARED)
        row, column = (at * self.stride_px for at in divmod(place, self.fits.columns))
        side = self.templates.fine_px
        window = self.pixels[row : row + side, column : column + side]
        distances = self.templates.distances(window, self.background, kinds)
        distances[~np.isfinite(errors[kinds])] = np.inf
        at = int(distances.argmin())
        return self._detection(place, int(kinds[at]), float(distances[at]))

    def _detection(self, place: int, kind: int, distance: float) -> Detection:
        row, column = divmod(place, self.fits.columns)
        index, style = self.templates.kinds[kind]
        return Detection(
            index=index,
            style=style,
            row=row / 2,
            column=column / 2,
            cells=self.templates.cells,
            distance=distance,
            explained=float(self.fits.explained[place, kind]),
        )


def _is_free(detection: Detection, taken: Sequence[Detection]) -> bool:
    return all(detection.overlap(other) <= _MOST_OVERLAP for other in taken)


def _smallest(values: Float[np.ndarray, " K"], count: int) -> Int[np.ndarray, " M"]:
    """Returns where the smallest values are, in the order of their positions."""
    count = min(count, len(values))
    return np.sort(np.argpartition(values, count - 1)[:count])


def _fine_copy(picture: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "64 64 3"]:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(
            f"expected RGB bytes [height, width, 3], got {picture.dtype} {list(picture.shape)}"
        )
    if picture.shape[0] != picture.shape[1]:
        raise ValueError(f"expected a square picture, got {picture.shape[1]}x{picture.shape[0]}")
    if picture.shape[0] % FINE_PX == 0:
        factor = picture.shape[0] // FINE_PX
        blocks = picture.reshape(FINE_PX, factor, FINE_PX, factor, 3).astype(np.float32)
        return blocks.mean(axis=(1, 3)) / 255
    resized = Image.fromarray(picture).resize((FINE_PX, FINE_PX), Image.Resampling.BOX)
    return np.asarray(resized).astype(np.float32) / 255


def _reduced(pixels: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "c c 3"]:
    factor = FINE_PX // COARSE_PX
    return pixels.reshape(COARSE_PX, factor, COARSE_PX, factor, 3).mean(axis=(1, 3))


def _blobs(foreign: Bool[np.ndarray, "64 64"], objects: Sequence[Detection], board: Board) -> int:
    """Counts squares of a small object's size in which much is left that no object explains."""
    cell_px = FINE_PX // board.cells
    left = foreign.copy()

    def clear(row: float, column: float, cells: int) -> None:
        """Clears a square of cells and one pixel around it."""
        top, start = (max(0, round(at * cell_px) - 1) for at in (row, column))
        bottom, end = (round((at + cells) * cell_px) + 1 for at in (row, column))
        left[top:bottom, start:end] = False

    for detection in objects:
        clear(detection.row, detection.column, detection.cells)
    side, stride = board.together_cells * cell_px, cell_px // 2
    count = 0
    while True:
        windows = np.lib.stride_tricks.sliding_window_view(left, (side, side))
        share = windows[::stride, ::stride].mean(axis=(2, 3))
        if share.max() < _BLOB_SHARE:
            return count
        row, column = divmod(int(share.argmax()), share.shape[1])
        clear(row / 2, column / 2, board.together_cells)
        count += 1
