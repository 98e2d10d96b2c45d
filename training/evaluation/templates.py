"""Templates of every sprite at one size, to search a picture with and to compare a region with."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from training.data.scenes import Board
from training.data.sprites import SpriteSet

COARSE_PX = 32  # side of the copy of a picture that is searched
FINE_PX = 64  # side of the copy on which a region is compared
DRAWN_PX = 128  # side of the pictures for which the sprites are drawn before they are reduced

_FAINT = (
    0.004  # squared contrast a pixel added to a template's own: white on white is not all noise
)
_LEAST_EXPLAINED = 0.25  # of a template's own contrast, or it is not there
_PARTS = 3  # along a side of a template, each of which must fit


@dataclass(frozen=True)
class Templates:
    """All sprites at one size.

    Attributes:
        cells: Cells along a side.
        kinds: Object index and style key of each template.
        coarse_colour: Premultiplied colours at COARSE_PX, one template a row.
        coarse_alpha: Alpha of each of these numbers.
        fine: Premultiplied RGBA at FINE_PX.
    """

    cells: int
    kinds: tuple[tuple[int, str], ...]
    coarse_colour: Float[np.ndarray, "K D"]
    coarse_alpha: Float[np.ndarray, "K D"]
    fine: Float[np.ndarray, "K n n 4"]

    @property
    def coarse_px(self) -> int:
        """Side of a template at COARSE_PX."""
        return round((self.coarse_colour.shape[1] // 3) ** 0.5)

    @property
    def fine_px(self) -> int:
        """Side of a template at FINE_PX."""
        return self.fine.shape[1]

    def search(
        self, contrast: Float[np.ndarray, "c c 3"], background: Float[np.ndarray, "3"], stride: int
    ) -> "Fits":
        """Compares every template with every window of a coarse picture.

        Args:
            contrast: The picture less its background.
            background: Colour in [0, 1] that the templates are drawn on.
            stride: Pixels between two windows.
        """
        side = self.coarse_px
        views = np.lib.stride_tricks.sliding_window_view(contrast, (side, side, 3))
        windows = views[::stride, ::stride, 0]
        patches = windows.reshape(-1, side * side * 3)
        drawn = self.coarse_colour - self.coarse_alpha * np.tile(background, side * side)
        strength = np.square(drawn).sum(axis=-1)
        explained = 2 * patches @ drawn.T - strength
        missed = np.square(patches).sum(axis=-1)[:, None] - explained
        error = missed / (strength + _FAINT * side * side)
        # A faint sprite misses little where there is nothing; what is there explains its strength.
        error[explained < _LEAST_EXPLAINED * strength] = np.inf
        return Fits(error=error, explained=explained, columns=windows.shape[1])

    def distances(
        self,
        window: Float[np.ndarray, "n n 3"],
        background: Float[np.ndarray, "3"],
        templates: Int[np.ndarray, " M"],
    ) -> Float[np.ndarray, " M"]:
        """Returns how far a region of a fine picture is from templates; 0 is exact.

        The distance is the larger of two relative squared errors: twice that of the colours in the
        worst ninth of the square, which objects of two halves or of another colour have, and that
        of the differences between neighbouring pixels, which blur and displacement have.

        Args:
            window: The region.
            background: Colour in [0, 1] that the templates are drawn on.
            templates: Which templates.
        """
        chosen = self.fine[templates]
        drawn = chosen[..., :3] + (1 - chosen[..., 3:]) * background
        wrong = _part_means(np.square(window - drawn).sum(axis=-1))
        strength = _part_means(np.square(drawn - background).sum(axis=-1))
        usual = strength.mean(axis=(1, 2), keepdims=True)
        parts = wrong / (strength + 0.5 * usual + _FAINT)
        return np.maximum(2 * parts.max(axis=(1, 2)), _edge_error(window, drawn))


@dataclass(frozen=True)
class Fits:
    """How well every template fits every window of a coarse picture.

    Attributes:
        error: Squared error over the template's own contrast with the background; infinite where
            the window has too little contrast to show the template.
        explained: How much of the window's squared contrast with its background the template
            accounts for; negative where it adds some.
        columns: Windows in a row of the picture.
    """

    error: Float[np.ndarray, "P K"]
    explained: Float[np.ndarray, "P K"]
    columns: int


def _part_means(values: Float[np.ndarray, "M n n"]) -> Float[np.ndarray, "M parts parts"]:
    """Returns the means over the parts of a square, whose sides differ by a pixel at most."""
    side = values.shape[1]
    starts = [side * part // _PARTS for part in range(_PARTS)]
    sizes = np.diff([*starts, side])
    sums = np.add.reduceat(np.add.reduceat(values, starts, axis=1), starts, axis=2)
    return sums / (sizes[:, None] * sizes)


def _edge_error(
    window: Float[np.ndarray, "n n 3"], drawn: Float[np.ndarray, "M n n 3"]
) -> Float[np.ndarray, " M"]:
    wrong = strength = np.zeros(len(drawn), np.float32)
    for axis in (1, 2):
        edges = np.diff(drawn, axis=axis)
        missed = np.diff(window[None], axis=axis) - edges
        wrong = wrong + np.square(missed).sum(axis=(1, 2, 3))
        strength = strength + np.square(edges).sum(axis=(1, 2, 3))
    return wrong / (strength + 0.125 * _FAINT * drawn.shape[1] ** 2)


def templates_of(sprites: SpriteSet, board: Board, cells: int) -> Templates:
    """Draws every sprite of every style at one size.

    Args:
        sprites: The artwork.
        board: Grid whose cells measure the size.
        cells: Cells along a side.
    """
    # A set of its own: the sprites' cache would keep every drawing at full size.
    drawing = SpriteSet(vocabulary=sprites.vocabulary, artwork=sprites.artwork)
    kinds, fine = [], []
    side = cells * FINE_PX // board.cells
    shrink = DRAWN_PX // FINE_PX
    for index, thing in enumerate(sprites.vocabulary.objects):
        for style in sprites.vocabulary.styles:
            drawn = drawing.scaled(thing.sprites[style], side * shrink)
            kinds.append((index, style))
            fine.append(_reduced(drawn, shrink))
        drawing = SpriteSet(vocabulary=sprites.vocabulary, artwork=sprites.artwork)
    coarse = np.stack([_reduced(each, FINE_PX // COARSE_PX) for each in fine])
    rows = len(fine)
    return Templates(
        cells=cells,
        kinds=tuple(kinds),
        coarse_colour=np.ascontiguousarray(coarse[..., :3]).reshape(rows, -1),
        coarse_alpha=np.repeat(coarse[..., 3:], 3, axis=-1).reshape(rows, -1),
        fine=np.stack(fine),
    )


def _reduced(drawn: Float[np.ndarray, "H W 4"], factor: int) -> Float[np.ndarray, "h w 4"]:
    height, width = drawn.shape[0] // factor, drawn.shape[1] // factor
    return drawn.reshape(height, factor, width, factor, 4).mean(axis=(1, 3))
