"""Reads a picture back: its background, and which objects of which style stand where.

Every known sprite, drawn on the background the picture seems to have, is laid over the picture at
each of the two sizes that scenes use and at every half cell; what explains most is taken first, and
nothing may overlap what was taken. A scene has one large object or several small ones: the size
that explains more in all is what it is read as. It works on a 64 px copy: blur, small shifts and
slight changes of colour then cost little. What is neither background nor a known object is counted.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from training.data.scenes import ALONE_CELLS, CELLS, TOGETHER_CELLS, half_size
from training.data.sprites import SpriteSet

SIDE_PX = 64  # of the copy that is read
CELL_PX = SIDE_PX // CELLS
STRIDE_PX = CELL_PX // 2

# Squared error over the sprite's own contrast with the background, above which it is not there.
# Half of the objects of a reconstruction at 24 dB have less than 0.15 and all less than 0.5, while
# half of all sprites have 0.45 or more to the one most like them: the best fit decides, not this.
WORST_ERROR = 0.55
_FAINT = 0.004  # contrast a pixel added to that ratio, so that white on white is not all noise
_MOST_MISSING = 0.25  # of a sprite's contrast, which a faint one may lose to blur
_SAME_COLOUR = 0.18  # distance in RGB of [0, 1] within which a pixel may be a named background
_FOREIGN = 0.25  # distance from the background above which a pixel shows something
_BLOB_SHARE = 0.25  # of a small object's square, above which unexplained pixels are an object
_MOST_OVERLAP = 0.15  # of the smaller square


@dataclass(frozen=True, kw_only=True)
class Found:
    """An object in a picture.

    Attributes:
        index: Of the object in the vocabulary.
        style: Key of its style.
        row: Top of its square in cells, a multiple of a half.
        column: Left of its square in cells.
        cells: Cells along a side of its square.
        error: Squared error over its contrast; 0 is exact.
        explains: How much of the picture's squared contrast with its background it accounts for.
    """

    index: int
    style: str
    row: float
    column: float
    cells: int
    error: float
    explains: float

    @property
    def centre(self) -> tuple[float, float]:
        """Row and column of its middle, in cells."""
        return self.row + self.cells / 2, self.column + self.cells / 2

    @property
    def merit(self) -> float:
        """What it explains, less the worse it fits."""
        return self.explains * (1 - self.error)

    def overlap(self, other: "Found") -> float:
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
    objects: tuple[Found, ...]
    unrecognised: int

    @property
    def style(self) -> str | None:
        """The style that all objects share, if they do."""
        styles = {found.style for found in self.objects}
        return styles.pop() if len(styles) == 1 else None


@dataclass(frozen=True)
class _Templates:
    """All sprites at one size: premultiplied colour and alpha, one a row."""

    cells: int
    colour: Float[np.ndarray, "K pixels*3"]
    alpha: Float[np.ndarray, "K pixels*3"]

    @property
    def side_px(self) -> int:
        return self.cells * CELL_PX

    def over(self, background: Float[np.ndarray, "3"]) -> Float[np.ndarray, "K pixels*3"]:
        """Returns how far each sprite's pixels are from the background it is drawn on."""
        return self.colour - self.alpha * np.tile(background, self.side_px**2)


class Detector:
    """Finds the sprites of one set; reads of one picture do not depend on another."""

    def __init__(self, sprites: SpriteSet) -> None:
        """Prepares the templates.

        Args:
            sprites: The artwork to look for.
        """
        self._vocabulary = sprites.vocabulary
        self._kinds = [
            (index, style)
            for index in range(len(sprites.vocabulary.objects))
            for style in sprites.vocabulary.styles
        ]
        self._templates = [self._scaled(sprites, n) for n in (ALONE_CELLS, TOGETHER_CELLS)]
        self._names = list(sprites.vocabulary.backgrounds)
        self._colours = np.array(list(sprites.vocabulary.backgrounds.values()), np.float32) / 255

    def _scaled(self, sprites: SpriteSet, cells: int) -> _Templates:
        rows = []
        for index, style in self._kinds:
            name = sprites.vocabulary.objects[index].sprites[style]
            drawn = sprites.scaled(name, 2 * cells * CELL_PX)  # as a 128 px scene, then halved
            side = cells * CELL_PX
            rows.append(drawn.reshape(side, 2, side, 2, 4).mean(axis=(1, 3)))
        stacked = np.stack(rows)
        return _Templates(
            cells=cells,
            colour=stacked[..., :3].reshape(len(rows), -1),
            alpha=np.repeat(stacked[..., 3:], 3, axis=-1).reshape(len(rows), -1),
        )

    def read(self, picture: UInt8[np.ndarray, "h w 3"]) -> Reading:
        """Reads a picture.

        Args:
            picture: Square, of any size.

        Raises:
            ValueError: it is not square or not RGB bytes.
        """
        pixels = _small(picture)
        background, colour = self._background(pixels)
        readings = [
            _without_overlap(_candidates(pixels - colour, templates, colour, self._kinds))
            for templates in self._templates
        ]
        objects = max(readings, key=lambda taken: sum(found.merit for found in taken))
        return Reading(
            background=background,
            objects=tuple(objects),
            unrecognised=_blobs(np.linalg.norm(pixels - colour, axis=-1) > _FOREIGN, objects),
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


def _candidates(
    contrast: Float[np.ndarray, "h w 3"],
    templates: _Templates,
    background: Float[np.ndarray, "3"],
    kinds: list[tuple[int, str]],
) -> list[Found]:
    """Lists what fits well enough: at each place the sprite that fits best, if any."""
    side = templates.side_px
    views = np.lib.stride_tricks.sliding_window_view(contrast, (side, side, 3))
    windows = views[::STRIDE_PX, ::STRIDE_PX, 0]
    patches = windows.reshape(-1, side * side * 3)
    drawn = templates.over(background)
    strength = np.square(drawn).sum(axis=-1)
    explains = 2 * patches @ drawn.T - strength
    missed = np.square(patches).sum(axis=-1)[:, None] - explains
    error = missed / (strength + _FAINT * side * side)
    best = error.argmin(axis=-1)
    candidates = []
    places = np.arange(len(best))
    # A faint sprite misses little wherever there is nothing; there it explains minus its strength.
    present = (error[places, best] < WORST_ERROR) & (
        explains[places, best] > -_MOST_MISSING * strength[best]
    )
    for at in np.flatnonzero(present):
        index, style = kinds[best[at]]
        row, column = divmod(int(at), windows.shape[1])
        candidates.append(
            Found(
                index=index,
                style=style,
                row=row * STRIDE_PX / CELL_PX,
                column=column * STRIDE_PX / CELL_PX,
                cells=templates.cells,
                error=max(0.0, float(error[at, best[at]])),
                explains=float(explains[at, best[at]]),
            )
        )
    return candidates


def _small(picture: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "64 64 3"]:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(
            f"expected RGB bytes [height, width, 3], got {picture.dtype} {list(picture.shape)}"
        )
    if picture.shape[0] != picture.shape[1]:
        raise ValueError(f"expected a square picture, got {picture.shape[1]}x{picture.shape[0]}")
    if picture.shape[0] == 2 * SIDE_PX:
        picture = half_size(picture)
    elif picture.shape[0] != SIDE_PX:
        resized = Image.fromarray(picture).resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)
        picture = np.asarray(resized)
    return picture.astype(np.float32) / 255


def _without_overlap(candidates: list[Found]) -> list[Found]:
    """Takes the candidate that explains most, again and again, of those that are still free."""
    taken: list[Found] = []
    for found in sorted(candidates, key=lambda candidate: -candidate.merit):
        if all(found.overlap(other) <= _MOST_OVERLAP for other in taken):
            taken.append(found)
    return taken


def _blobs(foreign: Bool[np.ndarray, "64 64"], objects: list[Found]) -> int:
    """Counts squares of a small object's size in which much is left that no object explains."""
    left = foreign.copy()
    for found in objects:
        _clear(left, found.row, found.column, found.cells)
    side = TOGETHER_CELLS * CELL_PX
    count = 0
    while True:
        windows = np.lib.stride_tricks.sliding_window_view(left, (side, side))
        share = windows[::STRIDE_PX, ::STRIDE_PX].mean(axis=(2, 3))
        if share.max() < _BLOB_SHARE:
            return count
        row, column = divmod(int(share.argmax()), share.shape[1])
        cell = STRIDE_PX / CELL_PX
        _clear(left, row * cell, column * cell, TOGETHER_CELLS)
        count += 1


def _clear(mask: Bool[np.ndarray, "64 64"], row: float, column: float, cells: int) -> None:
    """Clears a square of cells and one pixel around it."""
    top, left = (max(0, round(start * CELL_PX) - 1) for start in (row, column))
    bottom, right = (round((start + cells) * CELL_PX) + 1 for start in (row, column))
    mask[top:bottom, left:right] = False
